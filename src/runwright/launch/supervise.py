"""The processes of one run on this machine, started and watched over by a process that trains nothing itself.

It starts a fresh interpreter for each (`runwright.launch.worker`), hands rank 0 the configuration, waits, and returns
what rank 0 found. When one process fails it ends the others; when it is killed itself, they end with it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from runwright.config.errors import InputError, OccupiedError
from runwright.launch.worker import Outcome
from runwright.signals import ENDING, Interrupted

FAILURE_GRACE_S = 1.0  # that the other processes get once one has failed: one of them may know why
INPUT_ERRORS = {kind.__name__: kind for kind in (InputError, OccupiedError)}
SIGNAL_GRACE_S = 30.0  # that the others get to save and end once one process has ended on a signal


class WorkerError(Exception):
    """A process of the run failed; `trace` is what it had to say."""

    def __init__(self, summary: str, trace: str) -> None:
        super().__init__(summary)
        self.trace = trace


def supervise(text: str, num_processes: int) -> float | None:
    """Start the processes, wait for them, and end them all when one fails or this process does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = _threads(os.environ.get("OMP_NUM_THREADS", ""), cores) // num_processes
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        outcomes = [Path(folder) / f"{rank}.json" for rank in range(num_processes)]
        workers: list[subprocess.Popen[str]] = []
        with _forwarding(workers) as received:
            for rank, file in enumerate(outcomes):
                environment = {
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "GROUP_RANK": "0",
                    "WORLD_SIZE": str(num_processes),
                    "LOCAL_WORLD_SIZE": str(num_processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(listener.getsockname()[1]),
                    "TORCHELASTIC_RUN_ID": "runwright",  # by which Lightning knows that it need not start any
                    "OMP_NUM_THREADS": str(max(1, threads)),
                }
                worker = subprocess.Popen(
                    [sys.executable, "-m", "runwright.launch.worker", str(file), str(listener.fileno())],
                    env=environment,
                    stdin=subprocess.PIPE,  # open as long as this process lives
                    pass_fds=[listener.fileno()] if rank == 0 else [],  # so that no other program takes the port
                    start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
                    text=True,
                )
                workers.append(worker)
            try:
                with suppress(BrokenPipeError):  # it has ended already, which is found out below
                    _tell(workers[0], text)
                failed = _wait(workers, received)
            finally:
                for worker in workers:
                    _end(worker)
        if received and not all(file.exists() for file in outcomes):
            raise Interrupted(received[0])
        return _result(workers, outcomes, failed)


def _threads(setting: str, cores: int) -> int:
    """What OMP_NUM_THREADS says of the outermost level (`4,2` nests two), or one for each core."""
    outermost = setting.partition(",")[0].strip()
    return int(outermost) if outermost.isdecimal() and int(outermost) else cores


def _tell(worker: "subprocess.Popen[str]", text: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(text + "\n")
    worker.stdin.flush()


def _wait(workers: Sequence["subprocess.Popen[str]"], received: Sequence[int]) -> list[int]:
    """Until all have ended, or the grace period after the first failure is over; it is longer after a signal.

    Returns:
        Ranks of those that failed by themselves.
    """
    failed_at = None
    while True:
        if failed_at is None and _failed(workers):
            failed_at = time.monotonic()
        is_over = failed_at is not None and time.monotonic() - failed_at >= (
            SIGNAL_GRACE_S if received else FAILURE_GRACE_S
        )
        if is_over or all(worker.poll() is not None for worker in workers):
            return _failed(workers)
        time.sleep(0.02)


def _failed(workers: Iterable["subprocess.Popen[str]"]) -> list[int]:
    return [rank for rank, worker in enumerate(workers) if worker.poll() not in (None, 0)]


def _end(worker: "subprocess.Popen[str]") -> None:
    """End a process and what it started: all of them are in its session's group."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert worker.stdin is not None
    worker.stdin.close()


@contextmanager
def _forwarding(workers: list["subprocess.Popen[str]"]) -> Iterator[list[int]]:
    """Pass signals on to the workers, which end in their own way; a second one ends them at once."""
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, number if len(received) == 1 else signal.SIGKILL)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, forward) for number in ENDING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _result(workers: Sequence["subprocess.Popen[str]"], files: Sequence[Path], failed: Sequence[int]) -> float | None:
    """Rank 0's result, or the error of the process that failed first."""
    outcomes = [Outcome(**json.loads(file.read_text())) for file in files if file.exists()]
    errors = sorted((each for each in outcomes if each.error is not None), key=lambda each: each.time)
    ended = {rank: workers[rank].returncode for rank in failed if not files[rank].exists()}  # without a word
    # What was killed from outside comes first: the others only lost it, and say so or are aborted by gloo.
    culprits = [rank for rank, code in ended.items() if code < 0 and code != -signal.SIGABRT]
    if errors and not culprits:
        first, message = errors[0], errors[0].error or ""
        raise INPUT_ERRORS[first.kind](message) if first.kind in INPUT_ERRORS else WorkerError(message, first.trace)
    for rank in [*culprits, *ended]:
        code = ended[rank]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        raise WorkerError(f"process {rank} of {len(workers)} {how}", "")
    return outcomes[0].best
