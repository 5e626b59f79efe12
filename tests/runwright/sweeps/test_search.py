"""Searches through the command line: what is tried, what is cut short, and what survives."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SCRIPT, Result

from runwright.rundir.files import STUDY_JOURNAL
from runwright.sweeps.study import STUDY, open_journal

optuna = pytest.importorskip("optuna")

SMALL = ["model.hidden=[8]", "trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.limit_test_batches=1"]
SMALL += ["logger=none", "hydra.sweep.dir=here"]
RATES = "optimizer.lr=tag(log,interval(0.001,1))"
LR = ["-m", "hydra/sweeper=optuna", RATES, *SMALL]


def trials_of(folder: Path) -> list[Any]:
    return optuna.load_study(study_name=STUDY, storage=open_journal(folder / STUDY_JOURNAL)).trials


def states_of(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials_of(folder)]


def overrides_of(run_dir: Path) -> list[str]:
    return yaml.safe_load((run_dir / "overrides.yaml").read_text())


def metrics_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "metrics.json").read_text())


def test_the_study_holds_what_the_jobs_did_and_the_best_is_told(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli(*LR, "hydra.sweeper.num_trials=4", "monitor=val_acc", "mode=max", "hydra.sweeper.pruner=null")
    assert result.status == 0, result.err
    trials = trials_of(tmp_path / "here")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4
    for trial, run_dir in zip(trials, result.run_dirs, strict=True):
        assert run_dir.name == f"{trial.number}-optimizer.lr={trial.params['optimizer.lr']}"
        assert metrics_of(run_dir)["best"] == trial.value
        assert metrics_of(run_dir)["settings"]["optimizer.lr"] == trial.params["optimizer.lr"]
    best = max(trials, key=lambda trial: trial.value)
    assert f"best of 4 trials: {best.number}, val_acc" in result.out
    assert f"\noptimizer.lr={best.params['optimizer.lr']}\n" in result.out
    assert (tmp_path / "here" / "summary.csv").is_file()


def test_the_same_seed_tries_the_same_also_where_a_search_is_continued(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    draws = ["hydra.sweeper.num_trials=4", "hydra.sweeper.sampler.n_startup_trials=2"]
    whole = cli(*LR, *draws, "hydra.sweep.dir=whole").run_dirs
    other = cli(*LR, *draws, "hydra.sweep.dir=other", "seed=1").run_dirs
    first = cli(*LR, *draws, "hydra.sweeper.num_trials=3").run_dirs
    before = [(run_dir / "metrics.json").stat().st_mtime_ns for run_dir in first]
    rest = cli(*LR, *draws).run_dirs
    assert [(run_dir / "metrics.json").stat().st_mtime_ns for run_dir in first] == before
    assert [overrides_of(run_dir) for run_dir in [*first, *rest]] == [overrides_of(run_dir) for run_dir in whole]
    assert not {overrides_of(run_dir)[-1] for run_dir in other} & {overrides_of(run_dir)[-1] for run_dir in whole}


def test_every_kind_of_values_is_drawn_as_it_is_written(cli: Callable[..., Result], tmp_path: Path) -> None:
    space = ["optimizer=sgd,adam", "model.hidden=[8],[4,4]", "data.batch_size=range(32,129,32)"]
    space += ["callbacks.early_stopping.patience=int(interval(2,4))", "model.dropout=interval(0,0.5)"]
    result = cli(*LR[:2], *SMALL, *space, "hydra.sweeper.num_trials=6", "hydra.sweeper.num_parallel=3")
    assert result.status == 0, result.err
    assert len(result.run_dirs) == 6
    for run_dir in result.run_dirs:
        settings = metrics_of(run_dir)["settings"]
        assert settings["optimizer"] in ("SGD", "Adam")
        assert settings["model.hidden"] in ("[8]", "[4,4]")
        assert settings["data.batch_size"] in (32, 64, 96, 128)
        assert settings["callbacks.early_stopping.patience"] in (2, 3, 4)
        assert 0 <= settings["model.dropout"] <= 0.5


def test_bad_trials_are_cut_short_in_order(cli: Callable[..., Result], tmp_path: Path) -> None:
    pruner = ["hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.pruner.n_warmup_steps=0"]
    result = cli(*LR, *pruner, "trainer.max_epochs=4", "hydra.sweeper.num_trials=8")
    assert result.status == 0, result.err
    trials = trials_of(tmp_path / "here")
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    best = min(trial.value for trial in trials if trial.state.name == "COMPLETE")
    assert all(trial.value > best for trial in pruned)
    for trial, run_dir in zip(trials, result.run_dirs, strict=True):
        metrics = metrics_of(run_dir)
        assert metrics["stopped"].startswith("pruned: val_loss") == (trial in pruned)
        assert metrics["epochs"] == len(trial.intermediate_values)
        assert (metrics["epochs"] < 4) == (trial in pruned)
        assert metrics["test"]
    assert "pruned\n" in result.out
    again = cli(f"from={result.run_dirs[pruned[0].number]}")  # a run of its own, to its end
    assert again.metrics["epochs"] == 4


def test_a_failing_trial_is_marked_and_the_search_goes_on(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli(*LR, "data.val_size=0.1,70000", "hydra.sweeper.num_trials=6")
    assert result.status == 0, result.err
    states = states_of(tmp_path / "here")
    assert {"COMPLETE", "FAIL"} == set(states)
    failed = {str(number) for number, state in enumerate(states) if state == "FAIL"}
    assert {path.parent.name.partition("-")[0] for path in tmp_path.glob("here/*/error.txt")} == failed
    assert f"{len(failed)} of 6 jobs failed" in result.err


def test_a_search_in_which_all_fails_fails(cli: Callable[..., Result]) -> None:
    result = cli(*LR, "data.val_size=70000", "hydra.sweeper.num_trials=2")
    assert result.status == 1
    assert "2 of 2 jobs failed" in result.err
    assert "Traceback" not in result.err


def start(folder: Path, *args: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, str(SCRIPT), *LR, *args], cwd=folder, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_search_goes_on_in_the_midst_of_its_trial(cli: Callable[..., Result], tmp_path: Path) -> None:
    args = ["trainer.max_epochs=50", "hydra.sweeper.num_trials=2"]
    searching = start(tmp_path, *args)
    while not list(tmp_path.glob("here/1-*/checkpoints/last.ckpt")):
        assert searching.poll() is None
        time.sleep(0.01)
    searching.kill()
    searching.wait()
    assert states_of(tmp_path / "here") == ["COMPLETE", "RUNNING"]
    result = cli(*LR, *args)
    assert result.status == 0, result.err
    assert "trial 1 was interrupted and is resumed" in result.out
    assert "RUNNING" not in states_of(tmp_path / "here")
    whole = cli(*LR, *args, "hydra.sweep.dir=whole").run_dirs
    assert [overrides_of(tmp_path / "here" / run_dir.name) for run_dir in whole] == [overrides_of(d) for d in whole]
    assert [metrics_of(tmp_path / "here" / d.name)["fit"] for d in whole] == [metrics_of(d)["fit"] for d in whole]


@pytest.mark.slow
def test_two_searches_share_a_study(tmp_path: Path) -> None:
    args = ["trainer.max_epochs=20", "hydra.sweeper.num_trials=8", "hydra.sweeper.pruner=null"]
    searching = [start(tmp_path, *args) for _ in range(2)]
    assert [each.wait(timeout=300) for each in searching] == [0, 0]
    here = tmp_path / "here"
    assert states_of(here) == ["COMPLETE"] * 8
    assert sorted(int(path.parent.name.partition("-")[0]) for path in here.glob("*/metrics.json")) == list(range(8))
    assert not list(here.glob("*/error.txt"))
    assert len({trial.params["optimizer.lr"] for trial in trials_of(here)}) == 8


@pytest.mark.slow
def test_a_trial_of_two_processes_is_pruned_in_both(process: Callable[..., Result], tmp_path: Path) -> None:
    pruner = ["hydra.sweeper.pruner.n_startup_trials=1", "hydra.sweeper.pruner.n_warmup_steps=0"]
    ddp = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_epochs=4"]
    result = process(*LR, *ddp, *pruner, "hydra.sweeper.num_trials=3")
    assert result.status == 0, result.err
    assert set(states_of(tmp_path / "here")) == {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["optimizer.lr=0.1"], "nothing to search"),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr=tag(log,interval(0,1)): "),
        (["optimizer.lr=interval(0.1,0.2)", "hydra.sweeper.num_trials=0"], "num_trials must be"),
        (["optimizer.lr=interval(0.1,0.2)", "hydra.sweeper.pruner.n_startup_trials=-1"], "n_startup_trials"),
        (["optimizer.lr=interval(0.1,-1)"], "optimizer.lr=-1"),
    ],
)
def test_what_cannot_be_searched_costs_a_sentence(
    cli: Callable[..., Result], tmp_path: Path, args: list[str], sentence: str
) -> None:
    result = cli(*LR[:2], *SMALL, *args)
    assert result.status == 2
    assert sentence in result.err
    assert 1 <= len(result.err.splitlines()) <= 3, result.err
    assert not list(tmp_path.iterdir())


def test_a_search_of_the_other_mode_is_refused(cli: Callable[..., Result]) -> None:
    assert cli(*LR, "hydra.sweeper.num_trials=1").status == 0
    result = cli(*LR, "hydra.sweeper.num_trials=2", "monitor=val_acc")
    assert result.status == 2
    assert "mode=max: here holds a search of the other mode" in result.err


def test_without_optuna_a_sentence_says_what_to_install(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    result = cli(*LR)
    assert result.status == 2
    assert result.err == "hydra/sweeper=optuna: uv sync --extra sweep installs it\n"
    assert not list(tmp_path.iterdir())
