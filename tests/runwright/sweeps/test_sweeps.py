"""The jobs of a sweep: their names, the launchers that run them side by side, and what they share."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import SCRIPT, Result
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from runwright.config.keys import EXTRAS
from runwright.launch.sharing import gpus_of
from runwright.sweeps.grid import GridSweeper
from runwright.sweeps.names import job_name, run_name

QUICK = ["trainer.max_epochs=1", "model.hidden=[16]", "trainer.accelerator=cpu"]
TWO = ["trainer=ddp", "trainer.devices=2"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "7"),
        (["seed=1"], "7"),  # the same in every job
        (["seed=1", "optimizer.lr=0.1"], "7-optimizer.lr=0.1"),
        (["model.hidden=[300,100]", "data.root='/my data'"], "7-model.hidden=300,100,data.root=_my_data"),
        (["model.dropout=" + "0" * 300], ("7-model.dropout=" + "0" * 300)[:100]),
        (["name=../../etc"], "7-name=.._.._etc"),
    ],
)
def test_a_job_is_called_by_what_its_sweep_varies(tmp_path: Path, overrides: list[str], name: str) -> None:
    (tmp_path / "sweep.yaml").write_text(
        yaml.safe_dump({"config_name": None, "overrides": ["seed=1", "optimizer.lr=0.1,0.2"]})
    )
    assert job_name(7, overrides, tmp_path) == name


def test_the_directories_of_a_sweep(cli: Callable[..., Result]) -> None:
    result = cli("-m", *QUICK, "optimizer.lr=0.1,0.2", "hydra.sweep.dir=here")
    assert [path.name for path in result.run_dirs] == ["0-optimizer.lr=0.1", "1-optimizer.lr=0.2"]
    left = {path.name for path in result.run_dirs[0].parent.iterdir()} - {path.name for path in result.run_dirs}
    assert left == {"sweep.yaml", "multirun.yaml", "summary.json", "summary.csv"}


class Recorder:
    """In place of a launcher: keeps what it is given, and runs nothing."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[list[str]], int]] = []

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
        self.batches.append((jobs, initial_job_idx))
        return []


@pytest.mark.parametrize("size", [None, 1, 4, 5])
def test_a_grid_hands_all_combinations_to_the_launcher_in_their_order(tmp_path: Path, size: int | None) -> None:
    sweeper = GridSweeper(size, OmegaConf.create({"seed": "range(2)", "optimizer.lr": "1,2"}))
    sweeper.cfg = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path), "subdir": "${hydra:job.num}"}}})
    sweeper.parser, sweeper.jobs = OverridesParser.create(), Recorder()
    sweeper.sweep(["optimizer.lr=0.1,'0.2',3", "test=false"])  # replaces the configuration's values of the key
    jobs = [job for batch, _ in sweeper.jobs.batches for job in batch]
    assert [(job[0], job[1], job[2]) for job in jobs] == [
        (f"seed={seed}", f"optimizer.lr={lr}", "test=false") for seed in (0, 1) for lr in ("0.1", "'0.2'", "3")
    ]
    assert [job[3].startswith(f"hydra.sweep.subdir='{number}-") for number, job in enumerate(jobs)] == [True] * 6
    assert [first for _, first in sweeper.jobs.batches] == list(range(0, 6, size or 6))


def test_jobs_are_called_as_the_user_says(cli: Callable[..., Result]) -> None:
    result = cli("-m", *QUICK, "seed=1,2", "hydra.sweep.dir=here", "hydra.sweep.subdir='run of ${seed}'")
    assert [path.name for path in result.run_dirs] == ["run of 1", "run of 2"]


def test_a_launcher_that_is_not_installed_is_named_with_its_extra(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, "hydra/launcher=elsewhere", "sweep")
    result = cli("-m", "hydra/launcher=elsewhere")
    assert (result.status, result.err) == (2, "hydra/launcher=elsewhere: uv sync --extra sweep installs it\n")


def test_jobs_for_slurm_take_slurm(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", "")
    result = cli("-m", "hydra/launcher=slurm", "optimizer.lr=0.1,0.2")
    assert result.status == 2
    assert result.err.startswith("hydra/launcher=slurm: there is no srun here; ")


@pytest.mark.parametrize(
    ("slot", "num_gpus", "taken"),
    [(0, 1, ["a"]), (3, 1, ["d"]), (4, 1, ["a"]), (1, 2, ["c", "d"]), (1, 3, ["d", "a", "b"]), (0, 9, list("abcd"))],
)
def test_jobs_side_by_side_get_different_gpus(slot: int, num_gpus: int, taken: list[str]) -> None:
    assert gpus_of(slot, num_gpus, list("abcd")) == taken


def test_living_processes_have_different_slots(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from runwright.launch.sharing import take_slot; "
        "slot, lock = take_slot(Path(sys.argv[1])); print(slot, flush=True); sys.stdin.read()"
    )
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    first, second = start(), None
    assert first.stdout.readline() == "0\n"
    second = start()
    assert second.stdout.readline() == "1\n"
    first.communicate()
    third = start()
    assert third.stdout.readline() == "0\n"
    second.communicate()
    third.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [[], TWO], ids=["one process", "two"])
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_a_launcher_runs_a_sweep(process: Callable[..., Result], launcher: str, processes: list[str]) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.removesuffix('_local')}_launcher")
    # 937 samples to train on: the second batch size is found to be too large only in its job
    values = ["data.val_size=500", "data.batch_size=64,1002"]
    result = process("-m", *QUICK, *processes, f"hydra/launcher={launcher}", *values)
    assert result.status == 1
    (good,) = result.run_dirs
    assert good.name == "0-data.batch_size=64"
    assert (good / "metrics.json").exists()
    assert yaml.safe_load((good / "config.yaml").read_text())["data"]["batch_size"] == 64
    error = good.with_name("1-data.batch_size=1002") / "error.txt"
    assert error.read_text().startswith("data.batch_size=1002: ")
    assert not list(good.parent.glob(".slot-*"))
    assert sorted(path.name for path in good.parents[2].parent.iterdir()) == ["sweeps"]
    assert len(list(good.glob("events*"))) == 2  # of training and of the test


@pytest.mark.slow
def test_joblib_shares_out_threads(process: Callable[..., Result], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "threads.py").write_text(
        "import torch\nfrom pathlib import Path\nfrom lightning import Callback\n\nclass Threads(Callback):\n"
        "    def on_fit_start(self, trainer, task):\n"
        "        Path(trainer.default_root_dir, 'threads').write_text(str(torch.get_num_threads()))\n"
    )
    cores = psutil.cpu_count()
    joblib = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={cores}", "+callbacks.threads._target_=threads.Threads"]
    result = process("-m", *QUICK, *joblib, "seed=1,2", PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="")
    assert result.status == 0, result.err
    assert [(run_dir / "threads").read_text() for run_dir in result.run_dirs] == ["1", "1"]
    assert {line.partition(" ")[0] for line in result.out.splitlines() if "epoch 1/" in line} == {"#0", "#1"}


@pytest.mark.slow
def test_jobs_side_by_side_end_with_their_sweep(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    endless = ["trainer.max_epochs=-1", "callbacks=no_validation", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, SCRIPT, "-m", *QUICK, *endless, "seed=1,2"]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(list(tmp_path.rglob("events*"))) < 2:
            assert sweep.poll() is None
            psutil.wait_procs([psutil.Process(sweep.pid)], timeout=0.5)
        processes = psutil.Process(sweep.pid).children(recursive=True)
        assert len(processes) >= 2
    finally:
        sweep.kill()
        sweep.wait()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def outcome(run_dir: Path) -> dict[str, Any]:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return {key: metrics[key] for key in ("fit", "test", "steps", "seed")}


def test_a_sweep_goes_on_with_what_is_not_finished(cli: Callable[..., Result]) -> None:
    first, second, third = cli(
        "-m", *QUICK, "optimizer.lr=0.1,0.2,0.3", "model.dropout=0.2", "hydra.sweep.dir=whole"
    ).run_dirs
    expected = [outcome(each) for each in (first, second, third)]
    before = (first / "metrics.json").stat().st_mtime_ns
    (second / "metrics.json").unlink()
    shutil.rmtree(third)
    again = cli(f"resume={first.parent}")
    assert again.status == 0, again.err
    assert [outcome(each) for each in (first, second, third)] == expected
    assert (first / "metrics.json").stat().st_mtime_ns == before


def test_a_sweep_from_a_run_goes_on(cli: Callable[..., Result]) -> None:
    source = cli(*QUICK, "model.hidden=[12]").run_dir
    first, second = cli("-m", f"from={source}", "optimizer.lr=0.1,0.2", "hydra.sweep.dir=whole").run_dirs
    assert [first.name, second.name] == ["0-optimizer.lr=0.1", "1-optimizer.lr=0.2"]
    expected = outcome(second)
    shutil.rmtree(second)
    again = cli(f"resume={first.parent}")
    assert again.status == 0, again.err
    assert outcome(second) == expected
    assert "hidden:\n  - 12" in (second / "config.yaml").read_text()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2]",
        "{config_name: train}",
        "{config_name: ../train, overrides: []}",
        "{config_name: null, overrides: [{a: b}]}",
        *(
            json.dumps({"config_name": None, "overrides": ["seed=1,2", override]})
            for override in (
                "+callbacks.mine._target_=os.system",
                "++callbacks.best_checkpoint.dirpath=/",
                "name=${oc.env:HOME}",
                "hydra.searchpath=[file:///tmp]",
                "+hydra.callbacks.mine.x=1",
                "hydra.launcher.setup=[reboot]",
                "~hydra.job_logging",
                "hydra/job_logging=mine",
            )
        ),
    ],
)
def test_a_strangers_sweep_runs_nothing_of_its_own(cli: Callable[..., Result], tmp_path: Path, content: str) -> None:
    file = tmp_path / "theirs" / "sweep.yaml"
    file.parent.mkdir()
    file.write_text(content)
    result = cli("resume=theirs")
    assert result.status == 2
    assert result.err.startswith(f"{file}: ")
    assert len(result.err.splitlines()) == 1
    assert list(file.parent.iterdir()) == [file]


def test_a_sweep_goes_on_with_its_own_values(cli: Callable[..., Result]) -> None:
    sweep = cli("-m", *QUICK, "seed=1,2", "hydra.sweep.dir=here").run_dirs[0].parent
    changed = cli(f"resume={sweep}", "optimizer.lr=0.5")
    assert (changed.status, changed.err.partition(":")[0]) == (2, "optimizer.lr=0.5")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_sweep_that_was_killed_goes_on(process: Callable[..., Result], tmp_path: Path, launcher: str) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher}_launcher")
    values = [*QUICK, "trainer.max_epochs=30", "seed=1,2,3", "model.dropout=0.2", f"hydra/launcher={launcher}"]
    command = [sys.executable, SCRIPT, "-m", *values, "hydra.sweep.dir=killed"]
    sweep = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    while not (tmp_path / "killed" / "1-seed=2" / "checkpoints" / "last.ckpt").exists():
        assert sweep.poll() is None
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert process("resume=killed").status == 0
    assert process("-m", *values, "hydra.sweep.dir=whole").status == 0
    for name in ("0-seed=1", "1-seed=2", "2-seed=3"):
        assert outcome(tmp_path / "killed" / name) == outcome(tmp_path / "whole" / name)


def test_a_single_run_is_named_by_what_was_typed_for_it() -> None:
    typed = ["name=a", "init_from='runs/digits/2026-11-21_10-29-37.682825-optimizer=adam'", "model.hidden=[8,8]"]
    assert run_name(typed) == "init_from=2026-11-21_10-29-37.682825-optimizer=adam,model.hidden=8,8"
    assert run_name([]) == ""
