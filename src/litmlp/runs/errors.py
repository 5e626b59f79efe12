"""Errors that a user can cause, worded for that user."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf


class InputError(Exception):
    """Bad input, in one to three lines that name the key or file, the value, and the fix."""


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean x?` where a word is close to one of these, or abbreviates it; else nothing."""
    words = list(words)
    abbreviated = re.compile(".*".join(map(re.escape, word)))
    matches = [known for known in words if len(word) > 2 and abbreviated.match(known)]
    matches += [known for known in get_close_matches(word, words, n=2) if known not in matches]
    return f"; did you mean {' or '.join(matches[:2])}?" if matches else ""


@contextmanager
def blamed_on(cfg: DictConfig, section: str) -> Iterator[None]:
    """Turn what a constructor, or the data, says of bad values into an InputError about the key that holds them."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        cause = error.__cause__ if type(error).__name__ == "InstantiationException" and error.__cause__ else error
        if not isinstance(cause, ValueError | TypeError | OSError | ImportError) and not _is_misconfiguration(cause):
            raise
        message = re.sub(r"\s*\n\s*", "\n", str(cause).strip()) or type(cause).__name__
        raise InputError(f"{_culprit(cfg, section, message)}: {message}") from error


def _is_misconfiguration(error: BaseException) -> bool:
    return type(error).__name__ == "MisconfigurationException"  # Lightning's, by name: naming the class imports torch


def _culprit(cfg: DictConfig, section: str, message: str) -> str:
    """The key of the section that the message is about, with its value: by its name, else by its value."""
    leaves = {key: value for key, value in leaves_of(cfg, section) if not key.split(".")[-1].startswith("_")}
    by_name = [key for key in leaves if re.search(rf"\b{re.escape(key.split('.')[-1])}\b", message)]
    by_value = [
        key for key, value in leaves.items() if re.search(rf"(?<![\w.]){re.escape(str(value))}(?![\w.])", message)
    ]
    both = [key for key in by_name if key in by_value]
    key = next(iter([*both, *by_name, *by_value]), None)
    return section if key is None else f"{key}={as_typed(leaves[key])}"


def leaves_of(cfg: DictConfig, section: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in a section that is not itself a section; a list counts as one value."""
    node = OmegaConf.select(cfg, section)
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
