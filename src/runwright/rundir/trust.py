"""What may be built of a recorded run, which may be a stranger's: its config.yaml names what building it would run."""

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

# What the libraries offer that reads and writes nothing by itself. Not all of torchmetrics: some of its metrics load
# the models that an argument names.
REOPENED = (
    "torch.nn",
    "torchmetrics.aggregation",
    "torchmetrics.classification",
    "torchmetrics.regression",
    "torchvision.transforms",
)
# What training takes besides, outside of data, model and task. Of Lightning's callbacks and loggers, those that write
# nowhere but into the run's directory.
TRAINED = (
    *REOPENED,
    "runwright.loggers",  # report to where the environment says
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
WRITERS = ("callbacks", "logger")  # sections of what writes files
# What the libraries' classes there may be told in words; other words say where to write.
TOLD = (
    *("monitor", "mode", "filename", "save_last", "action", "interval", "duration", "logging_interval", "device"),
    *("name", "version", "prefix", "experiment_name", "project"),
)
# Words outside of data, model and task, which lead nowhere: no absolute path, no `..`, `~`, `$` or `://`.
PLAIN = re.compile(r"([\w ,;=+*()\[\]{}<>%!?#&|'-]|\.(?!\.)|:(?![:/])|(?<!^)(?<!/)/(?!/))*")
# Packages that lend some of these their names.
ALIASES = ("torchmetrics", "lightning.Trainer", "lightning.pytorch.callbacks", "lightning.pytorch.loggers")
SETTING = "trusted.yaml"  # in conf/


@dataclass(frozen=True)
class Trusted:
    """What `conf/trusted.yaml` adds: the project's own packages, and other libraries' that it uses."""

    packages: tuple[str, ...]
    """Of whose classes a run may be built."""
    functions: tuple[str, ...]
    """Modules whose functions may be called, too, outside of data, model and task."""


def read_trusted(conf: Path) -> Trusted:
    """The setting of a project's conf/.

    Raises:
        InputError: there is none, or it holds something else than lists of dotted names.
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
    """A run directory's `config.yaml`, found to hold plain values and to name only what may be built of them.

    It says so of names alone, without importing anything; `check_objects` judges what is behind the names.

    Args:
        run_dir: as the user gave it.
        conf: the project's, whose `trusted.yaml` is asked.
        to_train: the whole of it is to be built and trained, not just `REOPENED_PARTS` to be looked at.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    content, path, trusted = read_values(run_dir), run_dir / CONFIG, read_trusted(conf)
    for key in ("defaults", "hydra"):
        if key in content:
            raise InputError(f"{path}: {key} is not recorded of a run, and not taken from one")
    for key, value, _ in _leaves(content):
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{path}: {key}={value}: a recorded run has values, no interpolations")
    if to_train:
        _check_words(path, content, lambda name: _is_below(name, trusted.packages))
    if to_train:
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
    """Judge every `_target_` of `read_config`'s on the object behind the name: a class made in one of the packages.

    Raises:
        InputError: it is something else, or nothing.
    """
    trusted, content = read_trusted(conf), OmegaConf.to_container(cfg)
    own = {""}  # names of what is the project's own, whatever the name
    for key, name in _targets(content, to_train):
        try:
            target = get_object(name)
        except Exception as error:  # whatever a stranger's name may lead to
            raise _refusal(run_dir / CONFIG, key, name) from error
        is_part = key.partition(".")[0] in REOPENED_PARTS
        may_be_called = inspect.isfunction(target) and target.__module__ in trusted.functions and not is_part
        is_known = (inspect.isclass(target) or may_be_called) and isinstance(target.__module__, str)
        if not is_known or not _is_below(f"{target.__module__}.{target.__qualname__}", _packages(key, trusted)):
            raise _refusal(run_dir / CONFIG, key, name)
        own |= {name} if _is_below(target.__module__, trusted.packages) else set()
    if to_train:
        _check_words(run_dir / CONFIG, content, own.__contains__)


def _check_words(path: Path, content: Any, is_own: Callable[[str], bool]) -> None:
    for key, value, target in _leaves(content):
        section, *names = [name for name in key.split(".") if not name.isdecimal()]
        if not names or section in REOPENED_PARTS or names[-1] == "_target_":
            continue
        leads = isinstance(value, str) and not is_plain(value)
        is_told = names[-1] in TOLD or section not in WRITERS or is_own(target)
        if leads or "_args_" in names or (isinstance(value, str) and not is_told):
            raise InputError(f"{path}: {key}={value}: a recorded run writes into its own directory alone")


def is_plain(text: str) -> bool:
    """Whether this can be no place outside of the directory that it is looked for in."""
    return PLAIN.fullmatch(text) is not None


def check_links(run_dir: Path) -> None:
    """What is written into a run directory stays there, and gets there.

    Raises:
        InputError: a link in it leads elsewhere, or something in it is neither file nor directory, such as a pipe.
    """
    for path in run_dir.rglob("*"):
        if path.is_symlink() and not os.path.realpath(path).startswith(f"{os.path.realpath(run_dir)}{os.sep}"):
            raise InputError(f"{path}: a link that leads out of the run directory; put there what it leads to")
        if not path.is_symlink() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path}: neither a file nor a directory; remove it")


def _refusal(path: Path, key: str, name: Any) -> InputError:
    return InputError(
        f"{path}: {key}={name}: not a class that a recorded run may be built of; packages are added in conf/{SETTING}"
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
    """Dotted key and value of all that is neither a mapping nor a list, and the `_target_` that is given it.

    Of a `_target_` the value is whatever it is; the target of what is given to nothing is empty.
    """
    if key.rpartition(".")[2] != "_target_" and isinstance(node, dict | list):
        target = str(node.get("_target_", target)) if isinstance(node, dict) else target
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}" if key else str(name), target)
    else:
        yield key, node, target
