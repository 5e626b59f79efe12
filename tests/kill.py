"""Kill runs at random moments, resume them until they are done, and compare their bits with an untouched run's.

    python tests/kill.py [ROUNDS]

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
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from bits import differences, left_by

import runwright.training.train  # noqa: F401  # torch and Lightning, before any thread is started
from runwright.launch import supervise, worker
from runwright.rundir import durable
from runwright.signals import ENDING

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
RUN = [
    *(
        "trainer.max_epochs=12",
        "data.batch_size=32",
        "model.hidden=[32]",
        "logger=[tensorboard,csv]",
        "hydra.run.dir=run",
    ),
    *("trainer.accelerator=cpu", "trainer.log_every_n_steps=10"),
]
MODES = {
    "plain": [],
    "plateau per batch and dropout": ["scheduler=plateau_per_batch", "scheduler.patience=5", "model.dropout=0.3"],
    "while files are written": ["callbacks.last_checkpoint.every_n_steps=7", "model.dropout=0.3"],
    "two processes": ["trainer=ddp", "trainer.accelerator=cpu", "model.dropout=0.3"],
}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
MOST_KILLS = 4  # of one round; then it is left to end


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


def die_while_writing() -> None:
    """Let this process kill itself before or after one of the calls that bring a file to the disk."""
    countdown = random.randrange(1, 250)

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


def finish(folder: Path, mode: str, seconds: float) -> list[str]:
    """Run and kill until it is done; the signals that it took."""
    kills: list[str] = []
    command = [*RUN, *MODES[mode], "resume=auto"]
    while True:
        is_left_alone = len(kills) == MOST_KILLS
        writing = mode.startswith("while") and not is_left_alone
        child = attempt(folder, command, die_while_writing if writing else lambda: None)
        deadline = time.monotonic() + random.uniform(0, seconds)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline and not (is_left_alone or writing):
                number = random.choice(SIGNALS)
                os.kill(child, number)
                ended = os.waitpid(child, 0)
                break
            time.sleep(0.002)
        status = os.waitstatus_to_exitcode(ended[1])
        if status == 0:
            return kills
        number = -status if status < 0 else status - 128
        if number not in SIGNALS:
            raise SystemExit(f"{folder} ended with {status}:\n{(folder / 'output.txt').read_text()[-3000:]}")
        kills.append(signal.Signals(number).name)


def rounds(mode: str, number: int) -> bool:
    """Whether all of them had the bits of the untouched run."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        whole = folder / "whole"
        whole.mkdir()
        started = time.monotonic()
        assert os.waitpid(attempt(whole, [*RUN, *MODES[mode]]), 0)[1] == 0, (whole / "output.txt").read_text()
        seconds = time.monotonic() - started
        kills: Counter[str] = Counter()
        failures = 0
        for index in range(number):
            (folder / str(index)).mkdir()
            kills.update(finish(folder / str(index), mode, seconds))
            print(f"{mode}: round {index}, {kills.total()} kills", file=sys.stderr, flush=True)
        for index in range(number):  # only now, for torch must not have started threads before the last fork
            child = os.fork()
            if not child:
                found = list(differences(left_by(folder / str(index) / "run"), left_by(whole / "run")))
                print("\n".join(found[:20]), file=sys.stderr, flush=True)
                os._exit(bool(found))
            failures += os.waitpid(child, 0)[1] != 0
        counts = ", ".join(f"{count} {name}" for name, count in sorted(kills.items()))
        print(f"| {mode} | {number} | {counts} | {number - failures} of {number} |", flush=True)
        return failures == 0


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    wanted = sys.argv[2:] or list(MODES)
    sys.exit(not all(list(map(partial(rounds, number=number), wanted))))
