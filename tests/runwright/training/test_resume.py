"""A run that is stopped and resumed ends with the bits of one that was not."""

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bits import differences, left_by
from conftest import Result
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import timer

from runwright.rundir import trust

# Three epochs of 11 batches, with dropout and everything logged.
SMALL = [
    *(
        "trainer.max_epochs=3",
        "data.batch_size=128",
        "model.hidden=[16]",
        "model.dropout=0.2",
        "logger=[tensorboard,csv]",
    ),
    *("trainer.log_every_n_steps=4", f"+callbacks.stop._target_={__name__}.StopAt"),
]


class CrashError(RuntimeError):
    pass


class StopAt(Callback):
    """Ends the run before `step`, once: by a signal that it may heed, or by a crash after which nothing is saved."""

    step = -1
    number = 0
    batches = 0  # seen so far

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        StopAt.batches += 1
        if trainer.global_step == StopAt.step:
            StopAt.step = -1
            if not StopAt.number:
                raise CrashError
            os.kill(os.getpid(), StopAt.number)


@pytest.fixture(autouse=True)
def _trusted() -> Iterator[None]:
    """Lists this module, for `StopAt`, as a fork would its packages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "TRAINED", (*trust.TRAINED, __name__))
        yield


WHOLE: dict[tuple[str, ...], dict[str, Any]] = {}


@pytest.fixture
def whole_of(cli: Callable[..., Result]) -> Callable[..., dict[str, Any]]:
    """`whole_of(*arguments)` is what such a run leaves that is never stopped, trained once for all tests."""

    def run(*args: str) -> dict[str, Any]:
        if args not in WHOLE:
            WHOLE[args] = left_by(cli(*args).run_dir)
        return WHOLE[args]

    return run


@pytest.fixture
def interrupted(cli: Callable[..., Result]) -> Iterator[Callable[..., Path]]:
    """`interrupted(step, signal or 0, *arguments)` is the directory of a run that was ended before that step."""

    def run(step: int, number: int, *args: str) -> Path:
        StopAt.step, StopAt.number = step, number
        result = cli(*args)
        assert StopAt.step == -1
        assert result.status == (128 + number if number else 1), result.err
        (run_dir,) = result.run_dirs
        assert not (run_dir / "metrics.json").exists()
        return run_dir

    yield run
    StopAt.step = -1


@pytest.fixture
def batches_as_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """`trainer.max_time` counts batches."""
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: StopAt.batches))


# Validated after batches 2, 4, 6, 8 and 10 of each epoch.
WITHIN = ["+trainer.val_check_interval=0.25", "callbacks.best_checkpoint.save_top_k=2"]
VARIANTS = {
    "momentum": [],
    "adam": ["optimizer=adam", "scheduler=cosine", "scheduler.warmup_steps=5", "trainer.accumulate_grad_batches=2"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9", "optimizer=nesterov"],
    "plateau_per_batch": ["scheduler=plateau_per_batch", "scheduler.patience=1"],
    "one_cycle": ["scheduler=one_cycle", "callbacks.best_checkpoint.save_top_k=2"],
    "ema": ["callbacks=[default,ema,max_norm]"],
    "no_validation": ["data.val_size=0", "callbacks=no_validation", "monitor=train_loss", "scheduler=inverse_time"],
    "early_stopping": ["callbacks.early_stopping.patience=0", "callbacks.early_stopping.min_delta=10"],
    "steps": ["trainer.max_epochs=-1", "trainer.max_steps=33", "scheduler=step", "scheduler.step_size=1"],
    "steps_within": [*WITHIN, "trainer.max_epochs=-1", "trainer.max_steps=26", "scheduler=plateau_per_batch"],
    "plateau_within": [*WITHIN, "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9"],
    "after_every_batch": ["+trainer.val_check_interval=1", "callbacks.last_checkpoint.every_n_steps=1"],
    "within_accumulated": [*WITHIN, "trainer.accumulate_grad_batches=2", "callbacks.last_checkpoint.every_n_steps=1"],
    "every_step": ["callbacks.last_checkpoint.every_n_steps=1", "trainer.check_val_every_n_epoch=2"],
}


ENDS = ((0, 0), (3, signal.SIGTERM), (11, 0), (15, signal.SIGINT), (17, 0))  # before which step, by what


# Each variant with one of the ends, and, slowly, with all of them.
SOME = [pytest.param(name, [ENDS[i % len(ENDS)]], id=name) for i, name in enumerate(VARIANTS)]
ALL = [pytest.param(name, ENDS, id=f"{name}-all", marks=pytest.mark.slow) for name in VARIANTS]


@pytest.mark.parametrize(("variant", "ends"), [*SOME, *ALL])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(
    cli: Callable[..., Result],
    interrupted: Callable[..., Path],
    variant: str,
    ends: Sequence[tuple[int, int]],
    whole_of: Callable[..., dict[str, Any]],
) -> None:
    args = [*SMALL, *VARIANTS[variant]]
    whole = whole_of(*args)
    reached = [(step, number) for step, number in ends if step < whole["metrics"]["steps"]]
    assert reached
    for step, number in reached:
        run_dir = interrupted(step, number, *args)
        result = cli(f"resume={run_dir}")
        assert result.status == 0, result.err
        assert result.run_dirs == []
        resumed = left_by(run_dir)
        found = list(differences(resumed, whole))
        assert not found, "\n".join([str(step), *found])


def test_a_run_that_is_resumed_again_and_again_has_the_same_bits(
    cli: Callable[..., Result], interrupted: Callable[..., Path], whole_of: Callable[..., dict[str, Any]]
) -> None:
    whole = whole_of(*SMALL)
    run_dir = interrupted(2, signal.SIGUSR1, *SMALL)
    for StopAt.step, StopAt.number in ((5, signal.SIGTERM), (14, 0), (13, signal.SIGINT), (30, 0)):
        assert cli(f"resume={run_dir}").status == (128 + StopAt.number if StopAt.number else 1)
        assert StopAt.step == -1
    assert cli(f"resume={run_dir}").status == 0
    assert not list(differences(left_by(run_dir), whole))


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["trainer.max_epochs=-1", "trainer.max_steps=30"],
        ["monitor=train_loss", "trainer.max_epochs=-1", "trainer.max_steps=5"],
        ["trainer.max_time=00:00:00:16"],
        [*WITHIN, "trainer.max_time=00:00:00:17", "trainer.accumulate_grad_batches=3"],
        [*WITHIN, "callbacks.early_stopping.patience=3", "callbacks.early_stopping.min_delta=10"],
    ],
    ids=" ".join,
)
def test_a_signal_during_the_test_costs_only_the_test(
    cli: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    batches_as_seconds: None,
    whole_of: Callable[..., dict[str, Any]],
) -> None:
    whole = whole_of(*SMALL, *args)
    monkeypatch.setattr(StopAt, "on_test_start", lambda *args: os.kill(os.getpid(), signal.SIGTERM), raising=False)
    result = cli(*SMALL, *args)
    assert result.status == 143
    assert f"resume={result.run_dirs[0]}" in result.out.splitlines()[-1]
    monkeypatch.delattr(StopAt, "on_test_start")
    assert cli(f"resume={result.run_dirs[0]}").status == 0
    found = list(differences(left_by(result.run_dirs[0]), whole))
    assert not found, "\n".join(found)


def test_a_run_that_another_process_trains_is_left_alone(
    cli: Callable[..., Result], interrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = interrupted(3, signal.SIGTERM, *SMALL)
    monkeypatch.setattr("runwright.training.record.PATIENCE", 0.3)
    other = os.open(run_dir, os.O_RDONLY)  # as two processes have it, each by a descriptor of its own
    fcntl.flock(other, fcntl.LOCK_EX)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.suffix != ".log"}
    result = cli(f"resume={run_dir}")
    assert (result.status, result.err) == (
        2,
        f"{run_dir}: another process is training this run; let it end, or end it\n",
    )
    assert {path: path.read_bytes() for path in before} == before
    os.close(other)
    result = cli(f"resume={run_dir}")
    assert result.status == 0
    assert " s since it was resumed; " in result.out
    assert json.loads((run_dir / "metrics.json").read_text())["seconds"] is None  # of the whole


def test_a_run_that_another_process_has_just_finished_is_left_alone(
    cli: Callable[..., Result], interrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = (cli(*SMALL).run_dir / "metrics.json").read_bytes()
    run_dir = interrupted(3, signal.SIGTERM, *SMALL)
    finish = lambda folder: (run_dir / "metrics.json").write_bytes(metrics) > 0  # noqa: E731
    monkeypatch.setattr("runwright.training.record._try_lock", finish)  # while this one waits
    result = cli(f"resume={run_dir}")
    assert (result.status, result.err) == (2, f"{run_dir}: another process has just finished this run\n")
    assert (run_dir / "metrics.json").read_bytes() == metrics


def test_a_finished_run_says_so_and_stays_as_it_is(cli: Callable[..., Result]) -> None:
    run_dir = cli(*SMALL).run_dir
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file() and path.suffix != ".log"}
    result = cli(f"resume={run_dir}")
    assert result.status == 0
    assert f"{run_dir} is finished: reached trainer.max_epochs" in result.out
    assert {path: path.read_bytes() for path in before} == before


# What the longer run has besides, what ends it, and the ends on the way to its own. An epoch has 11 batches.
LONGER = {
    "epochs": (["scheduler=step"], "max_epochs", [2, 5]),
    "ema": (["callbacks=[default,ema]"], "max_epochs", [1, 2, 4]),
    "ema_steps": (["callbacks=[default,ema,max_norm]", "trainer.max_epochs=-1"], "max_steps", [11, 15, 22, 36]),
    "steps": (["trainer.max_epochs=-1", "scheduler=step"], "max_steps", [11, 22, 55]),
    "steps_and_epochs": (["trainer.max_epochs=4", "scheduler=plateau", "scheduler.patience=0"], "max_steps", [33, 66]),
    "accumulated": (["trainer.max_epochs=-1", "trainer.accumulate_grad_batches=3"], "max_steps", [4, 12]),
    "cut_short": (["trainer.max_epochs=-1", "scheduler=step", "scheduler.step_size=1"], "max_steps", [5, 17, 21, 33]),
    "cut_short_at_last": (
        ["trainer.max_epochs=9", "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9"],
        "max_steps",
        [12, 13, 30],
    ),
    "cut_short_accumulated": (["trainer.max_epochs=-1", "trainer.accumulate_grad_batches=3"], "max_steps", [3, 5, 9]),
    "cut_short_by_steps": (["trainer.max_epochs=-1", "scheduler=plateau_per_batch"], "max_steps", [7, 19]),
    "cut_short_validated": ([*WITHIN, "trainer.max_epochs=-1"], "max_steps", [5, 6, 17, 21, 34]),
    "cut_short_every_other": (
        ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5"],
        "max_steps",
        [5, 15, 21, 28, 40],
    ),
    "cut_short_ema": (["callbacks=[default,ema,histograms]", "trainer.max_epochs=-1"], "max_steps", [5, 17, 30]),
    "cut_short_by_train_loss": (["monitor=train_loss", "trainer.max_epochs=-1"], "max_steps", [9, 12, 20, 33]),
    "timed": (["trainer.max_epochs=4"], "max_time", [5, 13, 14, 30, 99]),
    "timed_accumulated": (["trainer.accumulate_grad_batches=3"], "max_time", [5, 10, 13, 99]),
    "timed_validated": ([*WITHIN, "trainer.accumulate_grad_batches=2"], "max_time", [5, 9, 10, 11, 16, 22, 99]),
}


QUICK = ("epochs", "ema_steps", "steps", "cut_short", "cut_short_validated", "timed_accumulated", "timed_validated")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else pytest.mark.slow) for case in LONGER]
)
def test_a_finished_run_can_be_made_longer(
    cli: Callable[..., Result], case: str, batches_as_seconds: None, whole_of: Callable[..., dict[str, Any]]
) -> None:
    args, key, lengths = LONGER[case]
    ends = [f"trainer.{key}={f'00:00:00:{length:02}' if key == 'max_time' else length}" for length in lengths]
    whole = whole_of(*SMALL, *args, ends[-1])
    result = cli(*SMALL, *args, ends[0])
    run_dir = result.run_dir
    for end in ends[1:]:
        assert f"reached trainer.{key}" in result.out
        result = cli(f"resume={run_dir}", end)
        assert result.status == 0, result.err
        assert f"trainer.{key}: " in result.out
    found = list(differences(left_by(run_dir), whole))
    assert not found, "\n".join(found)
    assert (ends[-1] in (run_dir / "overrides.yaml").read_text()) or key == "max_time"


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        ([], ["optimizer.lr=0.1", "seed=1"], ["optimizer.lr: 0.05 -> 0.1", "seed: 0 -> 1", "from="]),
        (["scheduler=cosine"], ["trainer.max_epochs=5"], ["trainer.max_epochs: 3 -> 5", "scheduler.T_max"]),
        ([], ["trainer.max_epochs=1"], ["trainer.max_epochs=1", "has trained for 3 epochs"]),
        ([], ["trainer.max_steps=32"], ["trainer.max_steps=32", "has trained for 33 steps\n"]),
        (["trainer.max_steps=15"], ["trainer.max_steps=14"], ["trainer.max_steps=14", "has trained for 15 steps\n"]),
    ],
)
def test_what_may_not_change_is_named(
    cli: Callable[..., Result], first: list[str], then: list[str], expected: list[str]
) -> None:
    run_dir = cli(*SMALL, *first).run_dir
    result = cli(f"resume={run_dir}", *then)
    assert result.status == 2
    assert all(fragment in result.err for fragment in expected), result.err
    assert (run_dir / "metrics.json").exists()


def test_a_run_that_is_within_an_epoch_is_made_no_shorter_than_it_is(
    cli: Callable[..., Result], interrupted: Callable[..., Path], whole_of: Callable[..., dict[str, Any]]
) -> None:
    run_dir = interrupted(15, signal.SIGTERM, *SMALL)
    shorter = cli(f"resume={run_dir}", "trainer.max_steps=16")
    assert "has trained for 16 steps, and needs at least one more" in shorter.err
    assert cli(f"resume={run_dir}", "trainer.max_steps=17").status == 0
    assert not list(differences(left_by(run_dir), whole_of(*SMALL, "trainer.max_steps=17")))


def test_auto_starts_a_run_and_goes_on_with_it(
    cli: Callable[..., Result], interrupted: Callable[..., Path], tmp_path: Path
) -> None:
    command = [*SMALL, "seed=null", "hydra.run.dir=here", "resume=auto"]
    run_dir = interrupted(15, signal.SIGTERM, *command)
    assert run_dir == tmp_path / "here"
    assert "resumes after step 16" in cli(*command).out
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["steps"] == 33
    assert "is finished" in cli(*command).out
    assert "resume=auto: set hydra.run.dir" in cli(*SMALL, "resume=auto").err


def test_a_sweep_goes_on_where_it_was_ended(
    cli: Callable[..., Result],
    interrupted: Callable[..., Path],
    tmp_path: Path,
    whole_of: Callable[..., dict[str, Any]],
) -> None:
    StopAt.step, StopAt.number = 15, signal.SIGTERM
    command = ["-m", *SMALL, "hydra.sweep.dir=there", "seed=0,1"]
    result = cli(*command)
    assert result.status == 143
    assert result.out.splitlines()[-1].endswith(" resume=there")
    assert len(result.run_dirs) == 1  # the second job was not begun
    result = cli(*command, "resume=auto")
    assert result.status == 0, result.err
    assert not list(differences(left_by(tmp_path / "there/0-seed=0"), whole_of(*SMALL)))
    assert cli(*command, "resume=auto").out.count("is finished") == 2


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_slurm_puts_a_run_that_was_warned_back_in_its_queue(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\necho "$@" > told')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    StopAt.step, StopAt.number = 15, number
    result = cli(*SMALL, "hydra.run.dir=here", "resume=auto")
    assert result.status == 128 + number
    if number == signal.SIGUSR1:
        assert (tmp_path / "told").read_text() == "requeue 42\n"
        assert "ended by SIGUSR1; back in SLURM's queue: " in result.out
    else:
        assert not (tmp_path / "told").exists()


ONCE = """
import os
import signal
from lightning import Callback

class Once(Callback):
    def __init__(self, signals: int = 1) -> None:
        self.signals = signals

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 15 and trainer.is_global_zero and not os.path.exists("fired"):
            open("fired", "w").close()
            for _ in range(self.signals):
                os.kill(os.getppid() if trainer.world_size > 1 else os.getpid(), signal.SIGTERM)
"""
ONCE_ARGS = [*SMALL[:-1], "model.dropout=0", "hydra.run.dir=run", "resume=auto", "+callbacks.once._target_=once.Once"]


@pytest.fixture
def once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "once.py").write_text(ONCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.slow
def test_a_second_signal_ends_at_once(process: Callable[..., Result], once: None) -> None:
    args = [*ONCE_ARGS, "+callbacks.once.signals=2"]
    result = process(*args)
    assert result.status == -signal.SIGTERM
    assert "a second signal ends the run at once" in result.err
    assert "resumes after step 11" in process(*args).out


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on_with_the_same_samples(
    process: Callable[..., Result], cli: Callable[..., Result], once: None, first: int, then: int, tmp_path: Path
) -> None:
    def args(num_processes: int) -> list[str]:
        kind = ["trainer=ddp", "trainer.devices=2"] if num_processes == 2 else ["trainer=default"]
        return [*kind, "trainer.accelerator=cpu", *ONCE_ARGS]

    stopped = process(*args(first))
    assert stopped.status == 143, stopped.err
    resumed = process(*args(then))
    assert resumed.status == 0, resumed.err
    assert f"trainer.devices: {first} -> {then}" in resumed.out
    whole = cli(*SMALL, "model.dropout=0", "trainer.accelerator=cpu", "hydra.run.dir=whole").metrics
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == whole["steps"]
    for stage in ("fit", "test"):
        assert metrics[stage] == pytest.approx(whole[stage], rel=1e-4)


def test_a_run_that_was_moved_goes_on(
    cli: Callable[..., Result],
    interrupted: Callable[..., Path],
    tmp_path: Path,
    whole_of: Callable[..., dict[str, Any]],
) -> None:
    whole = whole_of(*SMALL)
    moved = interrupted(25, signal.SIGTERM, *SMALL).rename(tmp_path / "moved")
    assert cli(f"resume={moved}").status == 0
    assert not list(differences(left_by(moved), whole))


@pytest.mark.parametrize("damaged", [["last.ckpt"], ["last.ckpt", "previous.ckpt"]])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    cli: Callable[..., Result],
    interrupted: Callable[..., Path],
    damaged: list[str],
    whole_of: Callable[..., dict[str, Any]],
) -> None:
    whole = whole_of(*SMALL)
    run_dir = interrupted(25, signal.SIGTERM, *SMALL)
    for name in damaged:
        file = run_dir / "checkpoints" / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    result = cli(f"resume={run_dir}")
    assert result.status == 0
    assert all(f"{name}: not the file that was written" in result.out for name in damaged)
    assert not list(differences(left_by(run_dir), whole))
