"""Signals that ask a run to end: it finishes its batch, saves, and exits with 128 + n. A second one ends it at once."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, a scheduler's stop, SLURM's warning


class Interrupted(BaseException):
    """A signal has ended the run. Not an Exception, so that no handler treats it as a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """The signals of one run. A signal raises `Interrupted` at once; if `deferred`, it only sets `pending`."""

    def __init__(self) -> None:
        self.pending = 0
        """Number of the signal received while `deferred`; 0 if none."""
        self.deferred = False
        """Whether the run checks `pending` itself, at points from which it can be resumed."""

    def listen(self) -> None:
        """Install the handlers; call it again after a library may have installed its own."""
        if threading.current_thread() is threading.main_thread() and not self.pending:
            for number in ENDING:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        for each in ENDING:
            signal.signal(each, signal.SIG_DFL)
        if not self.deferred:
            raise Interrupted(number)
        self.pending = number
        name = signal.Signals(number).name
        print(f"{name}: finishing the batch; a second signal ends the run at once", file=sys.stderr, flush=True)


@contextmanager
def handle_signals() -> Iterator[Signals]:
    """Handle the `ENDING` signals with `Signals` inside the context, and restore the previous handlers after it."""
    signals = Signals()
    before = [signal.getsignal(number) for number in ENDING]
    signals.listen()
    try:
        yield signals
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in zip(ENDING, before, strict=True):
                signal.signal(number, handler)
