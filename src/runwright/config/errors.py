"""Errors that a user can cause, and their messages."""

import errno
import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from omegaconf.errors import OmegaConfBaseException


class InputError(Exception):
    """Bad input, in one to three lines that name the key or file, the value, and the fix."""


class OccupiedError(InputError):
    """The directory belongs to another run: nothing may be written there."""


class DataError(ValueError):
    """The samples of a data set are wrong, rather than the value of a key."""


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean x?` if the word is close to one of `words` or abbreviates it; else empty."""
    words = list(dict.fromkeys(words))
    abbreviated = re.compile(".*".join(map(re.escape, word)))
    matches = [known for known in words if len(word) > 2 and abbreviated.match(known)]
    matches += [known for known in get_close_matches(word, words, n=2) if known not in matches]
    return f"; did you mean {' or '.join(matches[:2])}?" if matches else ""


def sentence(error: Exception) -> str | None:
    """The message for the user, if the error explains itself; None if it needs a traceback."""
    named: BaseException | None = error  # closing a logger after an error may raise another without a file name
    while isinstance(named, OSError) and named.filename is None:
        named = named.__context__
    if isinstance(error, OSError) and isinstance(named, OSError):
        return f"{os.fsdecode(named.filename)}: {named.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # from a write, which names no file
        return f"{error.strerror}: a file could not be written"
    if isinstance(error, OmegaConfBaseException):  # a value that cannot be resolved
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    return str(error) if isinstance(error, InputError | FloatingPointError) else None


def printable(text: str) -> str:
    """Replace characters that could control the terminal, or that XML does not allow: files may be someone else's."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def all_printable(value: Any, clean: Callable[[str], str] = printable) -> Any:
    """Apply `clean` to every string in a value from a JSON file."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [all_printable(each, clean) for each in value]
    if isinstance(value, dict):
        return {clean(key): all_printable(each, clean) for key, each in value.items()}
    return value
