"""Errors that a user can cause, and how they are worded."""

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
    """The samples of a data set are not what they should be; no value of a key is to blame."""


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean x?` where a word is close to one of these, or abbreviates it; else nothing."""
    words = list(dict.fromkeys(words))
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
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # of a write, which names no file
        return f"{error.strerror}: a file could not be written"
    if isinstance(error, OmegaConfBaseException):  # a value that cannot be resolved
        return f"{error.full_key}: {str(error).splitlines()[0]}"
    return str(error) if isinstance(error, InputError | FloatingPointError) else None


def printable(text: str) -> str:
    """It without what a stranger's file could tell the terminal to do, or an XML parser cannot take."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def all_printable(value: Any, clean: Callable[[str], str] = printable) -> Any:
    """What a JSON file holds, with every string in it printable, or what else `clean` makes of it."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [all_printable(each, clean) for each in value]
    if isinstance(value, dict):
        return {clean(key): all_printable(each, clean) for key, each in value.items()}
    return value
