"""Signals that ask a run to end: it finishes its batch, saves, and leaves with 128 + n. A second one kills it."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, a scheduler's order to end, SLURM's warning of it

pending = 0
"""Number of the signal that came while `deferred`; 0 for none."""
deferred = False
"""Whether the run will look at `pending` by itself, at a point from which it can go on."""


class Interrupted(BaseException):
    """A signal has ended the run. No Exception, so that nobody takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def heeded() -> Iterator[None]:
    """Within this, a signal raises `Interrupted`, at once or, where `deferred`, when the run says so."""
    global pending, deferred
    pending, deferred = 0, False
    before = [signal.getsignal(number) for number in ENDING]
    listen()
    try:
        yield
    finally:
        deferred = False
        if threading.current_thread() is threading.main_thread():
            for number, handler in zip(ENDING, before, strict=True):
                signal.signal(number, handler)


def listen() -> None:
    """Take the signals; again where a library has since put a handler of its own in the way."""
    if threading.current_thread() is threading.main_thread() and not pending:
        for number in ENDING:
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: object) -> None:
    global pending
    for each in ENDING:
        signal.signal(each, signal.SIG_DFL)
    if not deferred:
        raise Interrupted(number)
    pending = number
    print(f"{signal.Signals(number).name}: finishing the batch; another one ends at once", file=sys.stderr, flush=True)
