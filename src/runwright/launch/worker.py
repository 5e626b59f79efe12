"""One process of a run, started by `runwright.launch.supervise`."""

import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from runwright.config.errors import sentence
from runwright.launch.rendezvous import JOB, meet, train_as_rank
from runwright.rundir.durable import write
from runwright.signals import Interrupted


@dataclass
class Outcome:
    """A worker's result, written to a file for its supervisor."""

    best: float | None = None
    error: str | None = None
    kind: str = ""  # the error's class name
    trace: str = ""
    time: float = 0.0


def work(outcome_file: Path, listener: int) -> int:
    """Do this process's part of the run; return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until there is something to save, exit without a traceback
    text = sys.stdin.readline() if os.environ["RANK"] == "0" else None
    if text == "":  # the supervisor has ended
        return 1
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    outcome = Outcome()
    try:
        store = meet(listener)
        if text is not None:
            store.set(JOB, text)
        outcome.best = train_as_rank(store)
    except Interrupted as end:
        return 128 + end.number
    except Exception as error:
        message, outcome.kind = sentence(error), type(error).__name__
        outcome.error = message or f"{type(error).__name__}: {error}"
        outcome.trace = "" if message else traceback.format_exc()
        outcome.time = getattr(error, "raised_at", time.time())
    write(outcome_file, json.dumps(asdict(outcome)).encode())
    return 0 if outcome.error is None else 1


def _end_with(stream: IO[str]) -> None:
    """When the supervisor's end of the pipe is closed, kill this process and its children."""
    stream.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), int(sys.argv[2])))
