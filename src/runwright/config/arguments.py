"""What the command lines of all scripts share: argument errors, exit statuses, a closed pipe."""

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
    """Reports a wrong command line in one line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def complain(message: str) -> int:
    """Print an error message and return the exit status, 2."""
    print(printable(message), file=sys.stderr)
    return 2


def shows_traces() -> bool:
    """Whether the user wants tracebacks rather than lines."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def print_trace() -> None:
    """Print the traceback of the exception being handled."""
    print(printable(traceback.format_exc()), end="", file=sys.stderr)


def end_with_pipe() -> NoReturn:
    """Exit quietly when the reader, such as `| head`, has closed the pipe, as other programs do."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


@contextmanager
def complaining() -> Iterator[None]:
    """Around a script's work: report bad input, or a file that cannot be read or written, in one line; exit status 2.

    With HYDRA_FULL_ERROR=1, and for any other error, the traceback is shown instead.
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
