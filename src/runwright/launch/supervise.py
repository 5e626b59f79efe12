"""Start and supervise the processes of one run on this machine, from a process that does not train itself.

It starts an interpreter for each (`runwright.launch.worker`), sends rank 0 the configuration, waits, and returns rank
0's result. When one process fails it ends the others; when it is killed itself, they end too.
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

FAILURE_GRACE_S = 1.0  # time for the others after one has failed: one of them may report the cause
INPUT_ERRORS = {kind.__name__: kind for kind in (InputError, OccupiedError)}
SIGNAL_GRACE_S = 30.0  # time for the others to save and exit after one process has ended on a signal


class WorkerError(Exception):
    """A process of the run failed; `trace` is its traceback, if it left one."""

    def __init__(self, summary: str, trace: str) -> None:
        super().__init__(summary)
        self.trace = trace


def supervise(text: str, num_processes: int) -> float | None:
    """Start the processes, wait for them, and end all of them when one fails or this process does.

    Args:
        text: the job, from `rendezvous.as_text`.
        num_processes: how many to start.

    Returns:
        Rank 0's result.
    """
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
                    "TORCHELASTIC_RUN_ID": "runwright",  # tells Lightning not to start processes itself
                    "OMP_NUM_THREADS": str(max(1, threads)),
                }
                worker = subprocess.Popen(
                    [sys.executable, "-m", "runwright.launch.worker", str(file), str(listener.fileno())],
                    env=environment,
                    stdin=subprocess.PIPE,  # open until this process ends
                    pass_fds=[listener.fileno()] if rank == 0 else [],  # so that no other program takes the port
                    start_new_session=True,  # Ctrl-C reaches only this process, which forwards it
                    text=True,
                )
                workers.append(worker)
            try:
                with suppress(BrokenPipeError):  # it has ended already: handled below
                    _send(workers[0], text)
                failed = _wait(workers, received)
            finally:
                for worker in workers:
                    _end(worker)
        if received and not all(file.exists() for file in outcomes):
            raise Interrupted(received[0])
        return _result(workers, outcomes, failed)


def _threads(setting: str, cores: int) -> int:
    """OMP_NUM_THREADS of the outermost level (`4,2` has two levels), or one thread per core."""
    outermost = setting.partition(",")[0].strip()
    return int(outermost) if outermost.isdecimal() and int(outermost) else cores


def _send(worker: "subprocess.Popen[str]", text: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(text + "\n")
    worker.stdin.flush()


def _wait(workers: Sequence["subprocess.Popen[str]"], received: Sequence[int]) -> list[int]:
    """Wait until all have ended, or until the grace period after the first failure, which is longer after a signal.

    Returns:
        Ranks that failed by themselves.
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
    """Kill a process and its children, which are all in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert worker.stdin is not None
    worker.stdin.close()


@contextmanager
def _forwarding(workers: list["subprocess.Popen[str]"]) -> Iterator[list[int]]:
    """Forward signals to the workers, which save and exit; a second signal kills them. Yields the signals received."""
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
    """Return rank 0's result, or raise the error of the process that failed first."""
    outcomes = [Outcome(**json.loads(file.read_text())) for file in files if file.exists()]
    errors = sorted((each for each in outcomes if each.error is not None), key=lambda each: each.time)
    ended = {rank: workers[rank].returncode for rank in failed if not files[rank].exists()}  # without an outcome
    # A process killed from outside is the cause: the others only lost the connection, or were aborted by gloo.
    culprits = [rank for rank, code in ended.items() if code < 0 and code != -signal.SIGABRT]
    if errors and not culprits:
        first, message = errors[0], errors[0].error or ""
        raise INPUT_ERRORS[first.kind](message) if first.kind in INPUT_ERRORS else WorkerError(message, first.trace)
    for rank in [*culprits, *ended]:
        code = ended[rank]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        raise WorkerError(f"process {rank} of {len(workers)} {how}", "")
    return outcomes[0].best
