"""A run that is stopped and resumed ends with the bits of one that was not."""

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from bits import differences, left_by
from conftest import Result
from lightning import Callback, Trainer

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

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
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


VARIANTS = {
    "momentum": [],
    "adam": ["optimizer=adam", "scheduler=cosine", "scheduler.warmup_steps=5", "trainer.accumulate_grad_batches=2"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9", "optimizer=nesterov"],
    "plateau_per_batch": ["scheduler=plateau_per_batch", "scheduler.patience=1"],
    "one_cycle": ["scheduler=one_cycle", "callbacks.best_checkpoint.save_top_k=2"],
    "ema": ["callbacks=[default,ema,max_norm]"],
    "no_validation": ["data.val_size=0", "callbacks=no_validation", "monitor=train_loss", "scheduler=inverse_time"],
    "early_stopping": ["callbacks.early_stopping.patience=0", "callbacks.early_stopping.min_delta=10"],
    "every_step": ["callbacks.last_checkpoint.every_n_steps=1", "trainer.check_val_every_n_epoch=2"],
}


ENDS = ((0, 0), (3, signal.SIGTERM), (11, 0), (15, signal.SIGINT), (17, 0))  # before which step, by what


# Each variant with two of the ends, and, slowly, with all of them.
SOME = [pytest.param(name, [ENDS[i % 5], ENDS[(i + 2) % 5]], id=name) for i, name in enumerate(VARIANTS)]
ALL = [pytest.param(name, ENDS, id=f"{name}-all", marks=pytest.mark.slow) for name in VARIANTS]


@pytest.mark.parametrize(("variant", "ends"), [*SOME, *ALL])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(
    cli: Callable[..., Result], interrupted: Callable[..., Path], variant: str, ends: Sequence[tuple[int, int]]
) -> None:
    args = [*SMALL, *VARIANTS[variant]]
    whole = left_by(cli(*args).run_dir)
    for step, number in ends:
        if step >= whole["metrics"]["steps"]:
            continue
        run_dir = interrupted(step, number, *args)
        result = cli(f"resume={run_dir}")
        assert result.status == 0, result.err
        assert result.run_dirs == []
        resumed = left_by(run_dir)
        found = list(differences(resumed, whole))
        assert not found, "\n".join([str(step), *found])


def test_a_run_that_is_resumed_again_and_again_has_the_same_bits(
    cli: Callable[..., Result], interrupted: Callable[..., Path]
) -> None:
    whole = left_by(cli(*SMALL).run_dir)
    run_dir = interrupted(2, signal.SIGUSR1, *SMALL)
    for StopAt.step, StopAt.number in ((5, signal.SIGTERM), (14, 0), (13, signal.SIGINT), (30, 0)):
        assert cli(f"resume={run_dir}").status == (128 + StopAt.number if StopAt.number else 1)
        assert StopAt.step == -1
    assert cli(f"resume={run_dir}").status == 0
    assert not list(differences(left_by(run_dir), whole))


def test_a_signal_during_the_test_costs_only_the_test(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = left_by(cli(*SMALL).run_dir)
    monkeypatch.setattr(StopAt, "on_test_start", lambda *args: os.kill(os.getpid(), signal.SIGTERM), raising=False)
    result = cli(*SMALL)
    assert result.status == 143
    assert f"resume={result.run_dirs[0]}" in result.out.splitlines()[-1]
    monkeypatch.undo()
    assert cli(f"resume={result.run_dirs[0]}").status == 0
    assert not list(differences(left_by(result.run_dirs[0]), whole))


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
    monkeypatch.setattr("runwright.training.record._locked", finish)  # while this one waits
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


def test_a_finished_run_can_be_made_longer(cli: Callable[..., Result]) -> None:
    args = [*SMALL, "scheduler=step", "trainer.max_epochs=5"]
    whole = left_by(cli(*args).run_dir)
    run_dir = cli(*args, "trainer.max_epochs=2").run_dir
    result = cli(f"resume={run_dir}", "trainer.max_epochs=5")
    assert result.status == 0, result.err
    assert "trainer.max_epochs: 2 -> 5" in result.out
    assert not list(differences(left_by(run_dir), whole))
    assert "trainer.max_epochs=5" in (run_dir / "overrides.yaml").read_text()


@pytest.mark.parametrize(
    ("first", "then", "expected"),
    [
        ([], ["optimizer.lr=0.1", "seed=1"], ["optimizer.lr: 0.05 -> 0.1", "seed: 0 -> 1", "from="]),
        (["scheduler=cosine"], ["trainer.max_epochs=5"], ["trainer.max_epochs: 3 -> 5", "scheduler.T_max"]),
        ([], ["trainer.max_epochs=1"], ["trainer.max_epochs=1", "has trained for 3 epochs"]),
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


def test_auto_starts_a_run_and_goes_on_with_it(
    cli: Callable[..., Result], interrupted: Callable[..., Path], tmp_path: Path
) -> None:
    command = [*SMALL, "seed=null", "hydra.run.dir=here", "resume=auto"]
    run_dir = interrupted(15, signal.SIGTERM, *command)
    assert run_dir == tmp_path / "here"
    assert "goes on after step 16" in cli(*command).out
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert metrics["steps"] == 33
    assert "is finished" in cli(*command).out
    assert "resume=auto: set hydra.run.dir" in cli(*SMALL, "resume=auto").err


def test_a_sweep_goes_on_where_it_was_ended(
    cli: Callable[..., Result], interrupted: Callable[..., Path], tmp_path: Path
) -> None:
    StopAt.step, StopAt.number = 15, signal.SIGTERM
    command = ["-m", *SMALL, "hydra.sweep.dir=there", "seed=0,1"]
    result = cli(*command)
    assert result.status == 143
    assert result.out.splitlines()[-1].endswith(" resume=there")
    assert len(result.run_dirs) == 1  # the second job was not begun
    result = cli(*command, "resume=auto")
    assert result.status == 0, result.err
    assert not list(differences(left_by(tmp_path / "there/0-seed=0"), left_by(cli(*SMALL).run_dir)))
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
    assert "another one ends at once" in result.err
    assert "goes on after step 11" in process(*args).out


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
    cli: Callable[..., Result], interrupted: Callable[..., Path], tmp_path: Path
) -> None:
    whole = left_by(cli(*SMALL).run_dir)
    moved = interrupted(25, signal.SIGTERM, *SMALL).rename(tmp_path / "moved")
    assert cli(f"resume={moved}").status == 0
    assert not list(differences(left_by(moved), whole))


@pytest.mark.parametrize("damaged", [["last.ckpt"], ["last.ckpt", "previous.ckpt"]])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    cli: Callable[..., Result], interrupted: Callable[..., Path], damaged: list[str]
) -> None:
    whole = left_by(cli(*SMALL).run_dir)
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
