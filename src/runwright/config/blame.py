"""Which key of the configuration an error is about."""

import importlib
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from runwright.config.errors import DataError, InputError, nearest
from runwright.config.walk import as_typed, leaves_of

# Whose lines of a traceback say how something was imported, not what failed there.
_NOT_TO_BLAME = tuple(os.path.dirname(str(module.__file__)) for module in (hydra, importlib))


@contextmanager
def error_context(cfg: DictConfig, section: str, typed: Sequence[str] = ()) -> Iterator[None]:
    """Turn what a constructor, or the data, says of bad values into an InputError about the key that holds them.

    Args:
        cfg: the configuration.
        section: the dotted key of the part that is built or used.
        typed: the user's overrides; where it is unclear which key an error is about, one of these is taken first.
    """
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
        if type(error).__name__ == "InstantiationException" and isinstance(cause, ImportError) and cause.__cause__:
            raise InputError(_not_loaded(cfg, section, cause)) from error
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
        is_own = isinstance(cause, ValueError | OSError)  # torch's and OmegaConf's go on with where it happened
        message = "\n".join(lines[: 2 if is_own else 1])[:400]
        key = section if isinstance(cause, DataError) else _culprit(cfg, section, message, typed)
        raise InputError(f"{key}: {message}") from error


def _is_misconfiguration(error: BaseException) -> bool:
    return type(error).__name__ == "MisconfigurationException"  # Lightning's, by name: naming the class imports torch


def _culprit(cfg: DictConfig, section: str, message: str, typed: Sequence[str]) -> str:
    """The key of the section that the message is about, with its value: by what was typed, its name, its value."""
    leaves = {key: value for key, value in leaves_of(cfg, section) if not key.split(".")[-1].startswith("_")}
    words = set(re.findall(r"[\w.-]*\w", message))

    def score(key: str) -> tuple[bool, bool, bool]:
        value = leaves[key]
        values = {str(each) for each in value} if isinstance(value, list) else {str(value)}
        named, valued = key.split(".")[-1] in words, bool(values & words)
        return (named and valued, named, valued)

    given = [key for key in leaves if any(override.lstrip("+").startswith(f"{key}=") for override in typed)]
    told = max((key for key in given if any(score(key))), key=score, default=None)
    best = told or max((key for key in leaves if any(score(key))), key=score, default=None) or next(iter(given), None)
    return section if best is None else f"{best}={as_typed(leaves[best])}"


def _not_loaded(cfg: DictConfig, section: str, error: ImportError) -> str:
    """Which `_target_` Hydra could not import, and why: the name is wrong, or its module fails."""
    found = re.match("Error loading '(.*)'", str(error))
    target = found.group(1) if found else ""
    key = next((key for key, value in leaves_of(cfg, section) if value == target), section)
    return f"{key}={target}: {why_not_loaded(target, error.__cause__)}"


def why_not_loaded(target: str, cause: BaseException | None) -> str:
    """What kept the object of a dotted name from being imported: a part that is not there, or a line that fails.

    Args:
        target: the dotted name.
        cause: what Python raised when it was imported.
    """
    missing = cause.name if isinstance(cause, ModuleNotFoundError) and cause.name else None
    if missing is not None and f"{target}.".startswith(f"{missing}."):  # not what the module itself imports
        parent, _, part = missing.rpartition(".")
        if not parent:
            return f"there is no module {part}; is its package installed?"
        module = sys.modules.get(parent)
        inside = [each.name for each in pkgutil.iter_modules(getattr(module, "__path__", ()))]
        return f"there is no {part} in {parent}{nearest(part, [*dir(module), *inside])}"
    message = str(cause).partition("\n")[0]
    if isinstance(cause, SyntaxError):
        return f"{cause.filename}, line {cause.lineno}: {cause.msg}"
    lines = traceback.extract_tb(cause.__traceback__) if cause is not None else []
    own = [line for line in lines if not line.filename.startswith(("<", *_NOT_TO_BLAME))]
    place = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
    return f"{place}{type(cause).__name__}: {message}"
