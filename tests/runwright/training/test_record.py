"""A run directory is the whole truth about its run."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import PACKAGE, Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runwright.rundir.read import read_provenance

EPOCHS, BATCHES = 3, 7
SMALL = [f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={BATCHES}", "model.hidden=[16]"]


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Every TensorBoard tag with its points (step, value)."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_lies_in_a_run_directory(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL).run_dir
    left = {path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*")}
    assert left - {path for path in left if path.startswith("events.out.tfevents.")} == {
        *("config.yaml", "overrides.yaml", "metrics.json", "test_results.json", "train.log"),
        *("provenance.json", "hparams.yaml"),
        *("checkpoints", f"checkpoints/best-{EPOCHS - 1:03d}.ckpt", "checkpoints/last.ckpt"),
        "checkpoints/previous.ckpt",
    }
    assert any(path.startswith("events.out.tfevents.") for path in left)


def test_the_config_is_resolved_and_the_overrides_are_as_typed(cli: Callable[..., Result]) -> None:
    typed = [*SMALL, "optimizer=adam", "scheduler=one_cycle", "seed=5"]
    run_dir = cli(*typed).run_dir
    text = (run_dir / "config.yaml").read_text()
    cfg = yaml.safe_load(text)
    assert "${" not in text
    assert cfg["optimizer"]["lr"] == 0.001
    assert cfg["data"]["seed"] == cfg["seed"] == 5
    assert (cfg["model"]["sample_shape"], cfg["model"]["num_outputs"]) == ([1, 8, 8], 10)
    assert cfg["name"] == "digits"
    assert yaml.safe_load((run_dir / "overrides.yaml").read_text()) == typed


def test_a_reference_among_the_overrides_is_as_typed(cli: Callable[..., Result]) -> None:
    typed = ["debug=fast_dev_run", "optimizer.lr=${data.val_size}"]
    assert yaml.safe_load((cli(*typed).run_dir / "overrides.yaml").read_text()) == typed


def test_metrics_json(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "seed=5")
    metrics, run_dir = result.metrics, result.run_dir
    assert metrics["fit"].keys() == {"train_loss", "val_loss", "val_acc", "norm/hidden_0", "norm/output", "norm/all"}
    assert metrics["test"].keys() == {"test_loss", "test_acc"}
    assert (metrics["name"], metrics["monitor"], metrics["mode"], metrics["seed"]) == ("digits", "val_loss", "min", 5)
    assert (metrics["epochs"], metrics["steps"]) == (EPOCHS, EPOCHS * BATCHES)
    assert (run_dir / metrics["best_checkpoint"]).is_file()
    assert (run_dir / metrics["last_checkpoint"]).is_file()
    assert metrics["stopped"] == "reached trainer.max_epochs"
    assert metrics["seconds"] > 0


def test_a_run_that_failed_says_what_trained_it_and_so_does_what_goes_on_with_it(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "optimizer.lr=1e15")
    assert result.status == 1
    assert cli(f"resume={result.run_dirs[0]}").status == 1
    for made in (entries := read_provenance(result.run_dirs[0])):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", made["started"])
        assert made["versions"]["torch"] == torch.__version__.split("+")[0]
        assert made["versions"].keys() >= {"python", PACKAGE, "lightning", "torchmetrics", "hydra-core"}
        assert made["git"] is None or re.fullmatch(r"[0-9a-f]{40}", made["git"]["commit"])
    assert len(entries) == 2


def test_checkpoints_hold_tensors_and_plain_values(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL, "optimizer=adam", "scheduler=plateau", "callbacks=[default,ema]").run_dir
    for path in (run_dir / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["state_dict"]["model.hidden_0.weight"].shape == (16, 64)
        assert checkpoint["global_step"] == (EPOCHS - (path.name == "previous.ckpt")) * BATCHES


def test_the_log_tells_what_the_terminal_did(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL)
    log = re.sub(r"^\[[^]]+\]\[[^]]+\]\[INFO\] ", "", (result.run_dir / "train.log").read_text(), flags=re.M)
    assert log == result.out
    assert [line for line in log.splitlines() if line.startswith(f"epoch {EPOCHS}/{EPOCHS}")]


def test_the_curves_have_one_point_per_epoch_and_no_other(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "trainer.log_every_n_steps=2")
    metrics, points = result.metrics, curves(result.run_dir)
    ends = [BATCHES * (epoch + 1) - 1 for epoch in range(EPOCHS)]
    for tag, final in metrics["fit"].items():
        assert [step for step, _ in points[tag]] == ends, tag
        assert points[tag][-1][1] == pytest.approx(final), tag
    for tag, value in metrics["test"].items():
        assert [value for _, value in points[tag]] == [pytest.approx(value)], tag
    others = {"train_loss_step", "lr/decay", "lr/no_decay", "speed/samples_per_s", "speed/ms_per_step"}
    assert points.keys() - {"epoch"} == metrics["fit"].keys() | metrics["test"].keys() | others
    assert [step for step, _ in points["train_loss_step"]] == [
        BATCHES * epoch + batch for epoch in range(EPOCHS) for batch in range(0, BATCHES, 2)
    ]


def test_train_loss_is_the_mean_of_its_steps(cli: Callable[..., Result]) -> None:
    points = curves(cli(*SMALL, "trainer.log_every_n_steps=1").run_dir)
    steps = [value for _, value in points["train_loss_step"]]
    for epoch, (_, mean) in enumerate(points["train_loss"]):  # batches here are all of one size
        assert mean == pytest.approx(sum(steps[BATCHES * epoch : BATCHES * (epoch + 1)]) / BATCHES)


def learning_rates(cli: Callable[..., Result], *args: str) -> list[float]:
    points = curves(cli(*SMALL, "optimizer=sgd", "trainer.log_every_n_steps=1", *args).run_dir)
    assert points["lr/decay"] == points["lr/no_decay"]
    assert [step for step, _ in points["lr/decay"]] == list(range(EPOCHS * BATCHES))
    return [value for _, value in points["lr/decay"]]


def test_the_rate_logged_at_a_step_is_the_one_it_was_taken_with(cli: Callable[..., Result]) -> None:
    step = learning_rates(
        cli, "optimizer.lr=0.1", "scheduler=step_per_batch", "scheduler.step_size=5", "scheduler.gamma=0.5"
    )
    assert step == pytest.approx([0.1 * 0.5 ** (k // 5) for k in range(EPOCHS * BATCHES)])

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    one_cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=EPOCHS * BATCHES, pct_start=0.3, cycle_momentum=False
    )
    expected = []
    for _ in range(EPOCHS * BATCHES):
        expected.append(one_cycle.get_last_lr()[0])
        optimizer.step()
        one_cycle.step()
    assert learning_rates(cli, "optimizer.lr=0.1", "scheduler=one_cycle") == pytest.approx(expected)


def test_a_step_is_taken_with_the_rate_that_is_logged(cli: Callable[..., Result]) -> None:
    """With one weight matrix and no momentum, the first step from given weights is lr times the gradient."""
    quick = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "model.hidden=[]", "optimizer=sgd"]
    one = cli(*quick, "scheduler.warmup_steps=4", "trainer.log_every_n_steps=1").run_dir
    two = cli(*quick, "scheduler.warmup_steps=0").run_dir
    three = cli(*quick, "optimizer.lr=0.0").run_dir
    w1, w2, start = (
        torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["model.output.weight"]
        for run_dir in (one, two, three)
    )
    assert curves(one)["lr/decay"] == [(0, pytest.approx(0.1 / 4))]
    torch.testing.assert_close(w1 - start, (w2 - start) / 4)


def test_hyperparameters_are_there_for_the_hparams_tab(cli: Callable[..., Result]) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    run_dir = cli(*SMALL, "optimizer=adam").run_dir
    content = EventAccumulator(str(run_dir)).Reload().PluginTagToContent("hparams")
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    assert start.hparams["optimizer"].string_value == "adam"
    assert start.hparams["optimizer.lr"].number_value == 0.001
    assert start.hparams["model.hidden"].string_value == "[16]"
    assert start.hparams["trainer.max_epochs"].number_value == EPOCHS
    assert {info.name.tag for info in experiment.metric_infos} == {
        *("train_loss", "val_loss", "val_acc", "test_loss", "test_acc")
    }
    assert "_hparams_/session_end_info" in content


def test_the_csv_has_the_same_values(cli: Callable[..., Result]) -> None:
    import csv

    result = cli(*SMALL, "logger=[tensorboard,csv]")
    rows = list(csv.DictReader((result.run_dir / "metrics.csv").open()))
    for tag, points in curves(result.run_dir).items():
        if tag != "epoch":
            written = [float(row[tag]) for row in rows if row.get(tag)]
            assert written == pytest.approx([value for _, value in points]), tag
