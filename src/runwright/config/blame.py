"""Find the configuration key that an error is about."""

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

# Lines of a traceback in these packages show how something was imported, not what failed.
_IMPORTERS = tuple(os.path.dirname(str(module.__file__)) for module in (hydra, importlib))


@contextmanager
def error_context(cfg: DictConfig, section: str, typed: Sequence[str] = ()) -> Iterator[None]:
    """Turn an error about bad values, from a constructor or the data, into an InputError that names the key.

    Args:
        cfg: the configuration.
        section: dotted key of the part that is built or used.
        typed: the user's overrides; if it is unclear which key an error is about, these are preferred.
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
            | RuntimeError  # from torch, for impossibly large sizes among others
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
        is_own = isinstance(cause, ValueError | OSError)  # torch and OmegaConf add lines about where it happened
        message = "\n".join(lines[: 2 if is_own else 1])[:400]
        key = section if isinstance(cause, DataError) else _culprit(cfg, section, message, typed)
        raise InputError(f"{key}: {message}") from error


def _is_misconfiguration(error: BaseException) -> bool:
    return type(error).__name__ == "MisconfigurationException"  # Lightning's; importing the class imports torch


def _culprit(cfg: DictConfig, section: str, message: str, typed: Sequence[str]) -> str:
    """The key (and value) that the message is about: best by name and value, those of the user's overrides first."""
    leaves = {key: value for key, value in leaves_of(cfg, section) if not key.split(".")[-1].startswith("_")}
    words = set(re.findall(r"[\w.-]*\w", message))

    def score(key: str) -> tuple[bool, bool, bool]:
        value = leaves[key]
        values = {str(each) for each in value} if isinstance(value, list) else {str(value)}
        named, valued = key.split(".")[-1] in words, bool(values & words)
        return (named and valued, named, valued)

    given = [key for key in leaves if any(override.lstrip("+").startswith(f"{key}=") for override in typed)]
    best_given = max((key for key in given if any(score(key))), key=score, default=None)
    best = (
        best_given
        or max((key for key in leaves if any(score(key))), key=score, default=None)
        or next(iter(given), None)
    )
    return section if best is None else f"{best}={as_typed(leaves[best])}"


def _not_loaded(cfg: DictConfig, section: str, error: ImportError) -> str:
    """The `_target_` that Hydra could not import, and why: the name is wrong, or its module fails."""
    found = re.match("Error loading '(.*)'", str(error))
    target = found.group(1) if found else ""
    key = next((key for key, value in leaves_of(cfg, section) if value == target), section)
    return f"{key}={target}: {why_not_loaded(target, error.__cause__)}"


def why_not_loaded(target: str, cause: BaseException | None) -> str:
    """Why a dotted name could not be imported: part of the name does not exist, or a line of its module fails.

    Args:
        target: the dotted name.
        cause: the exception raised by the import.
    """
    missing = cause.name if isinstance(cause, ModuleNotFoundError) and cause.name else None
    if missing is not None and f"{target}.".startswith(f"{missing}."):  # and not something that the module imports
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
    own = [line for line in lines if not line.filename.startswith(("<", *_IMPORTERS))]
    place = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
    return f"{place}{type(cause).__name__}: {message}"
