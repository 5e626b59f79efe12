"""Errors that a user can cause, worded for that user."""

import os
import re
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any, NoReturn

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


class InputError(Exception):
    """Bad input, in one to three lines that name the key or file, the value, and the fix."""


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean x?` where a word is close to one of these, or abbreviates it; else nothing."""
    words = list(words)
    abbreviated = re.compile(".*".join(map(re.escape, word)))
    matches = [known for known in words if len(word) > 2 and abbreviated.match(known)]
    matches += [known for known in get_close_matches(word, words, n=2) if known not in matches]
    return f"; did you mean {' or '.join(matches[:2])}?" if matches else ""


def sentence(error: Exception) -> str | None:
    """What to tell the user, where the error's own words say it all; None where it takes a traceback."""
    named: BaseException | None = error  # a logger that is closed after an error may raise one of its own, without name
    while isinstance(named, OSError) and named.filename is None:
        named = named.__context__
    if isinstance(error, OSError) and isinstance(named, OSError):
        return f"{os.fsdecode(named.filename)}: {named.strerror}"
    return str(error) if isinstance(error, InputError | FloatingPointError) else None


class Parser(ArgumentParser):
    """Answers a wrong command line in a line, with exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def complain(message: str) -> int:
    """Say what is wrong; the exit status."""
    print(printable(message), file=sys.stderr)
    return 2


def printable(text: str) -> str:
    """It without what a stranger's file could tell the terminal to do."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def end_with_pipe() -> NoReturn:
    """End quietly, as other programs do, where `| head` has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


@contextmanager
def complaining() -> Iterator[None]:
    """Around what a script does: bad input, and a file that cannot be had, cost a sentence and exit status 2."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        end_with_pipe()
    except (InputError, OSError) as error:
        if (message := sentence(error)) is None:
            raise
        sys.exit(complain(message))


_typed: ContextVar[Sequence[str]] = ContextVar("_typed", default=())


@contextmanager
def typed(overrides: Sequence[str]) -> Iterator[None]:
    """Let errors be blamed, where it is unclear what they are about, on one of these overrides of the user's."""
    token = _typed.set(overrides)
    try:
        yield
    finally:
        _typed.reset(token)


@contextmanager
def blamed_on(cfg: DictConfig, section: str) -> Iterator[None]:
    """Turn what a constructor, or the data, says of bad values into an InputError about the key that holds them."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = error.__cause__ if type(error).__name__ == "InstantiationException" and error.__cause__ else error
        expected = (
            ValueError
            | TypeError
            | LookupError
            | ArithmeticError
            | AttributeError
            | RuntimeError  # torch's, of sizes that no machine has among others
            | MemoryError
            | OSError
            | ImportError
            | OmegaConfBaseException
            | HydraException
        )
        if not isinstance(cause, expected) and not _is_misconfiguration(cause):
            raise
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
        is_own = isinstance(cause, ValueError | OSError)  # torch's and OmegaConf's go on with where it happened
        message = "\n".join(lines[: 2 if is_own else 1])[:400]
        is_of_samples = type(cause).__name__ == "SamplesError"  # by name, as below; its numbers are no key's values
        key = section if is_of_samples else _culprit(cfg, section, message)
        raise InputError(f"{key}: {message}") from error


def _is_misconfiguration(error: BaseException) -> bool:
    return type(error).__name__ == "MisconfigurationException"  # Lightning's, by name: naming the class imports torch


def _culprit(cfg: DictConfig, section: str, message: str) -> str:
    """The key of the section that the message is about, with its value: by what was typed, its name, its value."""
    leaves = {key: value for key, value in leaves_of(cfg, section) if not key.split(".")[-1].startswith("_")}
    words = set(re.findall(r"[\w.-]*\w", message))

    def score(key: str) -> tuple[bool, bool, bool]:
        value = leaves[key]
        values = {str(each) for each in value} if isinstance(value, list) else {str(value)}
        named, valued = key.split(".")[-1] in words, bool(values & words)
        return (named and valued, named, valued)

    given = [key for key in leaves if any(override.lstrip("+").startswith(f"{key}=") for override in _typed.get())]
    told = max((key for key in given if any(score(key))), key=score, default=None)
    best = told or max((key for key in leaves if any(score(key))), key=score, default=None) or next(iter(given), None)
    return section if best is None else f"{best}={as_typed(leaves[best])}"


def leaves_of(cfg: DictConfig, section: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in a section that is not itself a section; a list counts as one value."""
    try:
        node = OmegaConf.select(cfg, section)
    except OmegaConfBaseException:  # an interpolation of what is not there
        parent, _, name = section.rpartition(".")
        yield section, OmegaConf.to_container(OmegaConf.select(cfg, parent))[name]  # type: ignore[index,call-overload]
        return
    if not isinstance(node, DictConfig):
        yield section, OmegaConf.to_container(node) if OmegaConf.is_list(node) else node
        return
    for key in node:
        yield from leaves_of(cfg, f"{section}.{key!s}")


def as_typed(value: Any) -> str:
    """A value as one writes it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(as_typed(element) for element in value)}]"
    return str(value)
