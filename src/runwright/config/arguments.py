"""What the scripts share on the command line: argument errors, exit statuses, a closed pipe."""

import os
import signal
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from runwright.config.errors import printable, sentence


class Parser(ArgumentParser):
    """Answers a wrong command line in a line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def complain(message: str) -> int:
    """Say what is wrong; the exit status."""
    print(printable(message), file=sys.stderr)
    return 2


def shows_traces() -> bool:
    """Whether the user wants tracebacks rather than lines."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def print_trace() -> None:
    """The traceback of the exception that is being handled."""
    print(printable(traceback.format_exc()), end="", file=sys.stderr)


def end_with_pipe() -> NoReturn:
    """End quietly, as other programs do, where `| head` has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


@contextmanager
def complaining() -> Iterator[None]:
    """Around what a script does: bad input, or a file that cannot be had, is told in a line; the exit status is 2.

    With HYDRA_FULL_ERROR=1 the traceback is shown instead, as it is of any other error.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        end_with_pipe()
    except Exception as error:
        if (message := sentence(error)) is None or shows_traces():
            print_trace()
            sys.exit(1 if message is None else 2)
        sys.exit(complain(message))
