"""Whole runs: what was asked is what was trained, and the same command gives the same numbers."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from runwright.rundir.checkpoint import read_checkpoint
from runwright.training.build import make

# Two epochs of 11 batches.
SMALL = ["trainer.max_epochs=2", "data.batch_size=128", "model.hidden=[16]", "model.dropout=0.2"]


def numbers(run_dir: Path) -> dict[str, Any]:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return {key: metrics[key] for key in ("best", "fit", "test", "epochs", "steps")}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(cli: Callable[..., Result]) -> None:
    one, same, other = (numbers(cli(*SMALL, f"seed={seed}").run_dir) for seed in (3, 3, 4))
    assert one == same
    assert one["fit"]["train_loss"] != other["fit"]["train_loss"]


def test_from_repeats_a_run_to_the_bit(cli: Callable[..., Result]) -> None:
    first = cli(*SMALL, "optimizer=adam", "data.fold=3").run_dir
    again = cli(f"from={first}").run_dir
    assert again != first
    assert numbers(again) == numbers(first)
    assert (again / "config.yaml").read_text() == (first / "config.yaml").read_text()


def test_from_with_a_value_changes_that_value_alone(cli: Callable[..., Result]) -> None:
    first = cli(*SMALL).run_dir
    again = cli(f"from={first}", "optimizer.lr=0.01").run_dir
    expected = OmegaConf.load(first / "config.yaml")
    expected.optimizer.lr = 0.01
    assert OmegaConf.load(again / "config.yaml") == expected
    assert numbers(again) == numbers(cli(*SMALL, "optimizer.lr=0.01").run_dir)


def test_what_follows_another_value_follows_it_in_a_repeated_run(cli: Callable[..., Result]) -> None:
    typed = ("seed=3", "monitor=val_acc", "mode=max", "on_nonfinite=ignore")
    first = cli(*SMALL, "scheduler=plateau", "hydra.run.dir=first").run_dirs[0]
    again = cli(f"from={first}", *typed, "hydra.run.dir=again").run_dirs[0]
    direct = cli(*SMALL, "scheduler=plateau", *typed, "hydra.run.dir=direct").run_dirs[0]
    assert (again / "config.yaml").read_text() == (direct / "config.yaml").read_text()
    assert numbers(again) == numbers(direct)
    own = cli(f"from={first}", "seed=3", "data.seed=4", "hydra.run.dir=own").run_dirs[0]
    assert OmegaConf.load(own / "config.yaml").data.seed == 4
    recorded = OmegaConf.load(first / "config.yaml")
    recorded.logger.mlflow = {"_target_": "runwright.loggers.trackers.MLflow", "experiment_name": recorded.name}
    OmegaConf.save(recorded, first / "config.yaml")
    assert "experiment_name: other" in cli(f"from={first}", "name=other", "--cfg", "job", "--resolve").out


def test_from_can_be_swept(cli: Callable[..., Result]) -> None:
    first = cli(*SMALL).run_dir
    result = cli("-m", f"from={first}", "seed=0,1")
    assert result.status == 0, result.err
    assert numbers(result.run_dirs[0]) == numbers(first) != numbers(result.run_dirs[1])


def test_from_refuses_what_a_recorded_run_does_not_have(cli: Callable[..., Result], tmp_path: Path) -> None:
    first = cli("debug=fast_dev_run", "hydra.run.dir=first").run_dir
    for override, expected in {
        "optimizer=adam": ["optimizer=adam", "values"],
        "experiment=mnist_sgd": ["experiment=mnist_sgd", "values"],
        "optimizer.lr=abc": ["optimizer.lr=abc", "a number (now 0.05)"],
        "optimizer.lr=-1": ["optimizer.lr=-1"],
        "optimizer.foo=1": ["optimizer.foo=1", "keys of optimizer"],
    }.items():
        result = cli(f"from={first}", override)
        assert result.status == 2, override
        assert len(result.err.splitlines()) <= 3
        assert all(fragment in result.err for fragment in expected), result.err
    assert list(tmp_path.iterdir()) == [first]


def test_a_drawn_seed_is_recorded_and_repeated(cli: Callable[..., Result]) -> None:
    one, two = (cli(*SMALL, "seed=null").run_dir for _ in range(2))
    seeds = [OmegaConf.load(run_dir / "config.yaml").seed for run_dir in (one, two)]
    assert seeds[0] != seeds[1]
    assert OmegaConf.load(one / "config.yaml").data.seed == seeds[0]
    assert numbers(one) != numbers(two)
    assert numbers(cli(f"from={one}").run_dir) == numbers(one)


def test_a_second_run_into_the_same_directory_leaves_the_first_intact(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    cli(*SMALL, "hydra.run.dir=here")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = cli(*SMALL, "seed=1", "hydra.run.dir=here")
    assert result.status == 2
    assert "holds a run already; choose another directory" in result.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_runs_started_in_the_same_second_do_not_collide(cli: Callable[..., Result]) -> None:
    one, two = (cli("debug=fast_dev_run").run_dir for _ in range(2))
    assert one != two
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d\.\d{6}-debug=fast_dev_run", one.name)


def accuracy_by_hand(run_dir: Path, checkpoint: str) -> float:
    cfg = OmegaConf.load(run_dir / "config.yaml")
    model, data = make(cfg, "model"), make(cfg, "data")
    state = torch.load(run_dir / checkpoint, weights_only=True)["state_dict"]
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    data.setup()
    x, y = data.test
    return (model.eval()(data.transform(x)).argmax(1) == y).float().mean().item()


def test_the_best_checkpoint_is_tested(cli: Callable[..., Result]) -> None:
    # The mean of the loss, of which nobody says that less is better; so the first epoch is the best.
    falling = ["+task.metrics.mean._target_=torchmetrics.aggregation.MeanMetric", "monitor=val_mean", "mode=max"]
    result = cli(*SMALL, "trainer.max_epochs=4", *falling)
    assert result.metrics["best_checkpoint"] == "checkpoints/best-000.ckpt"
    assert result.metrics["best_epoch"] == 0
    by_hand = accuracy_by_hand(result.run_dir, "checkpoints/best-000.ckpt")
    assert result.metrics["test"]["test_acc"] == pytest.approx(by_hand)
    assert by_hand != pytest.approx(accuracy_by_hand(result.run_dir, "checkpoints/last.ckpt"))


def test_without_validation_the_last_weights_are_tested(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "data.val_size=0", "callbacks=no_validation", "monitor=train_loss")
    assert result.metrics["best_checkpoint"] is result.metrics["best_epoch"] is None
    assert sorted(result.metrics["fit"])[-1] == "train_loss"  # no val_*
    by_hand = accuracy_by_hand(result.run_dir, "checkpoints/last.ckpt")
    assert result.metrics["test"]["test_acc"] == pytest.approx(by_hand)


def test_early_stopping_says_why(cli: Callable[..., Result]) -> None:
    patience = ["callbacks.early_stopping.patience=1", "callbacks.early_stopping.min_delta=10"]
    metrics = cli(*SMALL, "trainer.max_epochs=9", *patience).metrics
    assert metrics["epochs"] == 2  # the first sets the mark, the next does not beat it
    assert metrics["stopped"].startswith("early stopping: Monitored metric val_loss did not improve")


def test_a_limit_says_why(cli: Callable[..., Result]) -> None:
    assert cli(*SMALL).metrics["stopped"] == "reached trainer.max_epochs"
    assert cli(*SMALL, "trainer.max_epochs=9", "trainer.max_steps=13").metrics["stopped"] == "reached trainer.max_steps"


def test_a_limit_within_the_last_epoch_says_why(cli: Callable[..., Result]) -> None:
    assert cli(*SMALL, "trainer.max_steps=13").metrics["stopped"] == "reached trainer.max_steps"


def test_a_run_shorter_than_an_epoch(cli: Callable[..., Result]) -> None:
    assert cli(*SMALL, "trainer.max_steps=3").metrics["steps"] == 3


class KeepReturn(Callback):
    """What a sweeper would be given."""

    values: list[Any] = []

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        KeepReturn.values.append(job_return.return_value)


@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "min"), ("val_acc", "max")])
def test_main_returns_the_best_of_the_monitored_metric(cli: Callable[..., Result], monitor: str, mode: str) -> None:
    KeepReturn.values.clear()
    keep = f"+hydra.callbacks.keep._target_={__name__}.KeepReturn"
    metrics = cli(*SMALL, f"monitor={monitor}", f"mode={mode}", keep).metrics
    assert KeepReturn.values == [metrics["best"]]
    assert metrics["best"] == metrics["fit"][monitor]  # the last epoch of two is the better one


def test_debug_overfit_learns_its_batches_by_heart(cli: Callable[..., Result]) -> None:
    assert cli("debug=overfit", "trainer.max_epochs=50").metrics["fit"]["train_loss"] < 0.1


def test_debug_fast_dev_run_leaves_no_checkpoint_and_no_curves(cli: Callable[..., Result]) -> None:
    left = {path.name for path in cli("debug=fast_dev_run").run_dir.iterdir()}
    assert left == {"config.yaml", "overrides.yaml", "provenance.json", "metrics.json", "train.log"}


def test_debug_profile_leaves_its_table_and_a_trace(cli: Callable[..., Result]) -> None:
    result = cli("debug=profile")
    assert "aten::addmm" in result.out
    assert "aten::addmm" in (result.run_dir / "train.log").read_text()
    assert (result.run_dir / "trace.json").is_file()


@pytest.mark.slow  # half a minute for the compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="takes a C++ compiler")
def test_a_compiled_model_learns_the_same(cli: Callable[..., Result]) -> None:
    args = [*SMALL, "model.dropout=0"]  # the compiler draws other random numbers
    eager, compiled = cli(*args), cli(*args, "compile=default")
    assert compiled.metrics["test"] == pytest.approx(eager.metrics["test"], rel=1e-3)
    names = [
        set(read_checkpoint(each.run_dir / "checkpoints" / "last.ckpt")["state_dict"]) for each in (eager, compiled)
    ]
    assert names[0] == names[1]
    assert json.loads(cli(compiled.run_dir, script="evaluate").out) == pytest.approx(compiled.metrics["test"], rel=1e-3)


def test_a_run_without_logger(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "logger=none")
    left = {path.name for path in result.run_dir.iterdir()}
    assert left == {
        *("config.yaml", "overrides.yaml", "provenance.json", "metrics.json", "test_results.json", "train.log"),
        "checkpoints",
    }
    assert "tensorboard --logdir" not in result.out
    assert numbers(result.run_dir) == numbers(cli(*SMALL).run_dir)


def test_a_sweep_gives_the_numbers_of_its_runs_alone(cli: Callable[..., Result]) -> None:
    result = cli("-m", *SMALL, "optimizer=sgd,adam", "scheduler=step")
    assert result.status == 0, result.err
    assert [run_dir.name for run_dir in result.run_dirs] == ["0-optimizer=sgd", "1-optimizer=adam"]
    assert numbers(result.run_dirs[1]) == numbers(cli(*SMALL, "optimizer=adam", "scheduler=step").run_dir)


def test_flags_may_stand_anywhere(cli: Callable[..., Result]) -> None:
    result = cli("debug=fast_dev_run", "-m", "seed=1,2")
    assert result.status == 0, result.err
    assert len(result.run_dirs) == 2


def test_the_default_run_in_a_process_of_its_own(process: Callable[..., Result]) -> None:
    result = process()
    assert result.status == 0
    assert result.err == ""
    assert result.metrics["test"]["test_acc"] > 0.95
    where = result.run_dir.relative_to(result.run_dir.parents[2])
    assert result.out.endswith(
        f"best checkpoint: {where}/{result.metrics['best_checkpoint']}\n"
        f"run directory: {where}\n"
        f"curves: tensorboard --logdir {where}\n"
        f"report: {where}/report.html\n"
    )
    assert (result.run_dir / "curves.png").is_file()
