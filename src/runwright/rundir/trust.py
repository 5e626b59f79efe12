"""Checks before a recorded run, which may be someone else's, is rebuilt: its config.yaml names the code to run."""

import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runwright.config.errors import InputError
from runwright.config.values import check_value
from runwright.rundir.files import CONFIG
from runwright.rundir.read import REOPENED_PARTS, read_values

# Library packages that neither read nor write files. Not all of torchmetrics: some of its metrics load models whose
# names they take as arguments.
REOPENED = (
    "torch.nn",
    "torchmetrics.aggregation",
    "torchmetrics.classification",
    "torchmetrics.regression",
    "torchvision.transforms",
)
# Packages also allowed for training, outside of data, model and task. Only those of Lightning's callbacks and loggers
# that write nowhere but into the run's directory.
TRAINED = (
    *REOPENED,
    "runwright.loggers",  # they report to the server that the environment variables name
    "runwright.loop",
    "torch.optim",
    "lightning.pytorch.callbacks.early_stopping",
    "lightning.pytorch.callbacks.lr_monitor",
    "lightning.pytorch.callbacks.model_checkpoint",
    "lightning.pytorch.callbacks.model_summary",
    "lightning.pytorch.callbacks.progress",
    "lightning.pytorch.callbacks.timer",
    "lightning.pytorch.callbacks.weight_averaging",
    "lightning.pytorch.loggers.csv_logs.CSVLogger",
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger",
    "lightning.pytorch.trainer.trainer.Trainer",
)
WRITERS = ("callbacks", "logger")  # sections with classes that write files
# Arguments of library classes in these sections that may be strings; other strings could say where to write.
STRING_ARGUMENTS = (
    *("monitor", "mode", "filename", "save_last", "action", "interval", "duration", "logging_interval", "device"),
    *("name", "version", "prefix", "experiment_name", "project"),
)
# Strings allowed outside of data, model and task. They cannot point elsewhere: no absolute path, `..`, `~`, `$`, `://`.
PLAIN = re.compile(r"([\w ,;=+*()\[\]{}<>%!?#&|'-]|\.(?!\.)|:(?![:/])|(?<!^)(?<!/)/(?!/))*")
# Packages from which some of these are also imported.
ALIASES = ("torchmetrics", "lightning.Trainer", "lightning.pytorch.callbacks", "lightning.pytorch.loggers")
SETTING = "trusted.yaml"  # in conf/


@dataclass(frozen=True)
class Trusted:
    """What `conf/trusted.yaml` adds: the project's own packages, and other libraries that it uses."""

    packages: tuple[str, ...]
    """Packages whose classes may be built."""
    functions: tuple[str, ...]
    """Modules whose functions may also be called, outside of data, model and task."""


def read_trusted(conf: Path) -> Trusted:
    """Read `trusted.yaml` from a project's conf/.

    Raises:
        InputError: there is none, or it does not hold two lists of dotted names.
    """
    path = conf / SETTING
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    lists: list[Any] = [content.get(key) for key in ("packages", "functions")] if isinstance(content, dict) else []
    if not lists or not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in lists):
        raise InputError(f"{path}: must hold two lists of dotted names, packages and functions")
    return Trusted(*map(tuple, lists))


def read_config(run_dir: Path, conf: Path, to_train: bool = False) -> DictConfig:
    """Read a run directory's `config.yaml`; check that it holds plain values and names only trusted classes.

    This checks only the names and imports nothing; `check_objects` checks the objects that they refer to.

    Args:
        run_dir: as the user gave it.
        conf: the project's conf/, with its `trusted.yaml`.
        to_train: whether all of it will be built and trained, or only `REOPENED_PARTS` will be built.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    content, path, trusted = read_values(run_dir), run_dir / CONFIG, read_trusted(conf)
    for key in ("defaults", "hydra"):
        if key in content:
            raise InputError(f"{path}: a recorded run has no {key}; remove it")
    for key, value, _ in _leaves(content):
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{path}: {key}={value}: a recorded run has values, no interpolations")
    if to_train:
        _check_strings(path, content, lambda name: _is_below(name, trusted.packages))
        check_value("name", content.get("name"))
    for key, name in _targets(content, to_train):
        is_public = isinstance(name, str) and not any(part.startswith("_") for part in name.split("."))
        if not is_public or not _is_below(name, (*_packages(key, trusted), *ALIASES)):
            raise _refusal(path, key, name)
    try:
        return OmegaConf.create(content)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: not a configuration: {str(error).splitlines()[0]}") from error


def check_objects(run_dir: Path, cfg: DictConfig, conf: Path, to_train: bool = False) -> None:
    """Import every `_target_` in a configuration from `read_config`, and check that it is defined in a trusted package.

    It must be a class or, outside of data, model and task, a function of a module in `Trusted.functions`.

    Raises:
        InputError: one is something else, or cannot be imported.
    """
    trusted, content = read_trusted(conf), OmegaConf.to_container(cfg)
    own = {""}  # targets defined in the project's packages, under whatever name
    for key, name in _targets(content, to_train):
        try:
            target = get_object(name)
        except Exception as error:  # importing an unknown name can raise anything
            raise _refusal(run_dir / CONFIG, key, name) from error
        is_part = key.partition(".")[0] in REOPENED_PARTS
        may_be_called = inspect.isfunction(target) and target.__module__ in trusted.functions and not is_part
        is_known = (inspect.isclass(target) or may_be_called) and isinstance(target.__module__, str)
        if not is_known or not _is_below(f"{target.__module__}.{target.__qualname__}", _packages(key, trusted)):
            raise _refusal(run_dir / CONFIG, key, name)
        own |= {name} if _is_below(target.__module__, trusted.packages) else set()
    if to_train:
        _check_strings(run_dir / CONFIG, content, own.__contains__)


def _check_strings(path: Path, content: Any, is_own: Callable[[str], bool]) -> None:
    """Refuse arguments, outside of data, model and task, that could make a library write out of the run's directory."""
    for key, value, target in _leaves(content):
        section, *names = [name for name in key.split(".") if not name.isdecimal()]
        if not names or section in REOPENED_PARTS or names[-1] == "_target_":
            continue
        is_place = isinstance(value, str) and not is_plain(value)
        takes_strings = names[-1] in STRING_ARGUMENTS or section not in WRITERS or is_own(target)
        if is_place or "_args_" in names or (isinstance(value, str) and not takes_strings):
            raise InputError(f"{path}: {key}={value}: a recorded run may write only into its own directory")


def is_plain(text: str) -> bool:
    """Whether this string, used as a path, stays below the directory that it is relative to."""
    return PLAIN.fullmatch(text) is not None


def check_links(run_dir: Path) -> None:
    """Check that files written into a run directory end up there.

    Raises:
        InputError: it holds a link to a place outside of it, or something that is neither a file nor a directory, such
            as a pipe.
    """
    for path in run_dir.rglob("*"):
        if path.is_symlink() and not os.path.realpath(path).startswith(f"{os.path.realpath(run_dir)}{os.sep}"):
            raise InputError(f"{path}: a link that leads out of the run directory; replace it with its target")
        if not path.is_symlink() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: neither a file nor a directory; remove it")


def _refusal(path: Path, key: str, name: Any) -> InputError:
    return InputError(
        f"{path}: {key}={name}: not a class that a recorded run may be built of; "
        f"if you trust it, add its package to conf/{SETTING}"
    )


def _packages(key: str, trusted: Trusted) -> Sequence[str]:
    return (*trusted.packages, *(REOPENED if key.partition(".")[0] in REOPENED_PARTS else TRAINED))


def _is_below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _targets(content: Any, to_train: bool) -> Iterator[tuple[str, Any]]:
    for key, value, _ in _leaves(content if to_train else {part: content[part] for part in REOPENED_PARTS}):
        if key.rpartition(".")[2] == "_target_":
            yield key, value


def _leaves(node: Any, key: str = "", target: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted key and value of everything that is not a mapping or a list, and the `_target_` that it is an argument of.

    A `_target_` is yielded even if its value is a mapping or a list. The target is empty if there is none.
    """
    if key.rpartition(".")[2] != "_target_" and isinstance(node, dict | list):
        target = str(node.get("_target_", target)) if isinstance(node, dict) else target
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}" if key else str(name), target)
    else:
        yield key, node, target
