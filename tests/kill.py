"""Kill runs at random moments, resume them until they are done, and compare their bits with an untouched run's.

    python tests/kill.py [ROUNDS [MODE ...]]

One process imports everything and forks each attempt, and the processes of a run of two, so that a round takes seconds
and a kill falls into the run rather than into its imports.
"""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from bits import differences, left_by
from lightning.pytorch.callbacks import timer
from torch import Tensor

import runwright.training.train  # noqa: F401  # torch and Lightning, before any thread is started
from litmlp.data.in_memory import Samples
from litmlp.tasks.supervised import SupervisedTask
from runwright.launch import supervise, worker
from runwright.rundir import durable
from runwright.signals import ENDING

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
ALIKE = [
    *("model.hidden=[32]", "logger=[tensorboard,csv]", "hydra.run.dir=run"),
    *("trainer.accelerator=cpu", "trainer.log_every_n_steps=10"),
]
LONG = ["trainer.max_epochs=12", "data.batch_size=32"]
SHORT = ["data.batch_size=64", "model.dropout=0.3", "report=false"]  # an epoch has 21 batches
STEPS = ["trainer.max_epochs=-1", "scheduler=step", "scheduler.step_size=1"]
WITHIN = ["+trainer.val_check_interval=0.25", "callbacks.best_checkpoint.save_top_k=2"]


@dataclass(frozen=True)
class Mode:
    """A kind of run, and of its ends.

    Args:
        args: of the command.
        steps: of the whole run, where its signals come in random ones of them; 0 where they come at random times.
        cut: key of what also ends it early, as its user may, who then makes it longer.
        writing: it is killed where it writes files.
    """

    args: list[str]
    steps: int = 0
    cut: str = ""
    writing: bool = False


ACCUMULATED = "trainer.accumulate_grad_batches"
MODES = {
    "plain": Mode(LONG),
    "plateau per batch and dropout": Mode(
        [*LONG, "scheduler=plateau_per_batch", "scheduler.patience=5", "model.dropout=0.3"]
    ),
    "while files are written": Mode(
        [*LONG, "callbacks.last_checkpoint.every_n_steps=7", "model.dropout=0.3"], writing=True
    ),
    "two processes": Mode([*LONG, "trainer=ddp", "trainer.accelerator=cpu", "model.dropout=0.3"]),
    "counted in steps": Mode([*SHORT, *STEPS], 70, "max_steps"),
    "counted in steps, while files are written": Mode([*SHORT, *STEPS, *WITHIN], 70, "max_steps", writing=True),
    "max_time": Mode([*SHORT, "trainer.max_epochs=3", "scheduler=plateau", "scheduler.patience=0"], 63, "max_time"),
    "validation within epochs": Mode([*SHORT, *STEPS, *WITHIN, "callbacks=[default,ema]"], 70, "max_steps"),
    "accumulated gradients": Mode([*SHORT, *STEPS, f"{ACCUMULATED}=4", "optimizer=adam"], 20, "max_steps"),
    "accumulated gradients and validation within epochs": Mode(
        [*SHORT, *WITHIN, "trainer.max_epochs=3", f"{ACCUMULATED}=4"], 18, "max_time"
    ),
    "every other epoch is validated": Mode(
        [*SHORT, *STEPS, "trainer.check_val_every_n_epoch=2", "callbacks.last_checkpoint.every_n_steps=3"],
        70,
        "max_steps",
    ),
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MOST_ENDS = {False: 4, True: 8}  # of one round, at random times or in random steps; then it is left to end
CLOCK = 200  # how much faster than time it is, by which `max_time` counts in seconds


class Forked:
    """In place of the `subprocess.Popen` that starts a process of a run of two."""

    def __init__(self, command: list[str], env: dict[str, str], **options: object) -> None:
        read, write = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os.setsid()
            os.dup2(read, 0)
            os.close(write)
            os.environ.update(env)
            for number in ENDING:
                signal.signal(number, signal.SIG_DFL)
            sys.stdin = open(0)  # noqa: SIM115
            status = worker.work(Path(command[3]), int(command[4]))
            sys.stdout.flush()
            os._exit(status)
        os.close(read)
        self.stdin = open(write, "w")  # noqa: SIM115

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)


def attempt(folder: Path, args: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Start `train.py` in a fork of this process; its process number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.chdir(folder)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [str(SCRIPT), *args]
        supervise.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": Forked})  # type: ignore[assignment]
        prepare()
        runpy.run_path(str(SCRIPT), run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def die_while_writing(most: int) -> None:
    """Let this process kill itself before or after one of the first calls that bring a file to the disk."""
    countdown = random.randrange(1, most)

    def deadly(call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **options: object) -> object:
            nonlocal countdown
            countdown -= 1
            if countdown == 0 and random.random() < 0.5:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **options)
            if countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    durable.os.fsync = deadly(os.fsync)  # type: ignore[assignment]
    Path.replace = deadly(Path.replace)  # type: ignore[method-assign,assignment]
    Path.unlink = deadly(Path.unlink)  # type: ignore[method-assign,assignment]


def signal_in(step: int, number: int) -> None:
    """Let this process send itself a signal in that step, or in its first if it is past that one."""
    whole, is_sent = SupervisedTask.training_step, False

    @wraps(whole)
    def training_step(task: SupervisedTask, batch: Samples, batch_idx: int) -> Tensor:
        nonlocal is_sent
        if task.global_step >= step and not is_sent:
            is_sent = True
            os.kill(os.getpid(), number)
        return whole(task, batch, batch_idx)

    SupervisedTask.training_step = training_step  # type: ignore[method-assign]


def hurry() -> None:
    timer.time = SimpleNamespace(monotonic=lambda: CLOCK * time.monotonic())  # type: ignore[attr-defined,assignment]


def finish(folder: Path, mode: Mode, seconds: float) -> list[str]:
    """Run it and end it until it is done; the signals that it took, and the ends that were moved."""
    ends: list[str] = []
    limit = 0
    while True:
        is_left_alone = len(ends) == MOST_ENDS[mode.steps > 0]
        is_cut = bool(mode.cut) and not is_left_alone and random.random() < 0.25
        limit += random.randint(1, max(1, mode.steps // 3))
        length = [f"trainer.max_steps={mode.steps}"] if mode.cut == "max_steps" else []
        if mode.cut == "max_time":
            length = ["trainer.max_time=null"]
        if is_cut:
            length = [f"trainer.max_steps={min(limit, mode.steps)}"]
            if mode.cut == "max_time":
                length = [f"trainer.max_time=00:00:{limit // 60:02}:{limit % 60:02}"]
        prepare: Callable[[], None] = hurry
        if mode.writing and not is_left_alone:
            prepare = partial(die_while_writing, 60 if mode.steps else 250)
        elif mode.steps and not (is_cut or is_left_alone):
            prepare = partial(signal_in, random.randrange(mode.steps), random.choice(SIGNALS))
        child = attempt(folder, [*ALIKE, *mode.args, *length, "resume=auto"], prepare)
        deadline = time.monotonic() + random.uniform(0, seconds)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline and not (is_left_alone or mode.writing or mode.steps):
                number = random.choice(SIGNALS)
                os.kill(child, number)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.002)
        status = os.waitstatus_to_exitcode(ended[1])
        if status == 0 and not is_cut:
            return ends
        if status == 2 and is_cut:  # refused, for it has trained for longer
            continue
        number = -status if status < 0 else status - 128
        if status and number not in SIGNALS:
            raise SystemExit(f"{folder} ended with {status}:\n{(folder / 'output.txt').read_text()[-3000:]}")
        ends.append(signal.Signals(number).name if status else mode.cut)


def rounds(name: str, number: int) -> bool:
    """Whether all of them had the bits of the untouched run."""
    mode = MODES[name]
    length = [f"trainer.max_steps={mode.steps}"] if mode.cut == "max_steps" else []
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        whole = folder / "whole"
        whole.mkdir()
        started = time.monotonic()
        assert os.waitpid(attempt(whole, [*ALIKE, *mode.args, *length]), 0)[1] == 0, (whole / "output.txt").read_text()
        seconds = time.monotonic() - started
        ends: Counter[str] = Counter()
        failures = 0
        for index in range(number):
            (folder / str(index)).mkdir()
            ends.update(finish(folder / str(index), mode, seconds))
            print(f"{name}: round {index}, {ends.total()} ends", file=sys.stderr, flush=True)
        for index in range(number):  # only now, for torch must not have started threads before the last fork
            child = os.fork()
            if not child:
                found = list(differences(left_by(folder / str(index) / "run"), left_by(whole / "run")))
                print("\n".join(found[:20]), file=sys.stderr, flush=True)
                os._exit(bool(found))
            failures += os.waitpid(child, 0)[1] != 0
        counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
        print(f"| {name} | {number} | {counts} | {number - failures} of {number} |", flush=True)
        return failures == 0


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    wanted = sys.argv[2:] or list(MODES)
    sys.exit(not all(list(map(partial(rounds, number=number), wanted))))
