"""Errors that a user can cause, and how they are worded."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """Bad input, in one to three lines that name the key or file, the value, and the fix."""


class OccupiedError(InputError):
    """The directory belongs to another run: nothing may be written there."""


class DataError(ValueError):
    """The samples of a data set are not what they should be; no value of a key is to blame."""


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


def printable(text: str) -> str:
    """It without what a stranger's file could tell the terminal to do."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
