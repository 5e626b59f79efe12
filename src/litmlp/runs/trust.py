"""What may be built of a recorded run, which may be a stranger's: its config.yaml names what building it would run."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litmlp.runs.checks import check_value, leads_outside
from litmlp.runs.errors import InputError

# The packages whose classes a recorded run may be built of. A fork lists its own here. Not all of torchmetrics: some of
# its metrics load the models that an argument names.
REOPENED = (
    "litmlp.data",
    "litmlp.models",
    "litmlp.tasks",
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
    "litmlp.callbacks",
    "litmlp.loggers",  # report to where the environment says
    "litmlp.optim",
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
# Packages that lend some of these their names.
ALIASES = ("torchmetrics", "lightning.Trainer", "lightning.pytorch.callbacks", "lightning.pytorch.loggers")
WITH_FUNCTIONS = "litmlp.optim"  # schedules are functions, and nothing else there is
PARTS = ("data", "model", "task")  # all that is built of a run that is only reopened

LARGEST, DEEPEST = 1_000_000, 50  # bytes of a config.yaml, and levels of nesting


def read_config(run_dir: Path, to_train: bool = False) -> DictConfig:
    """A run directory's `config.yaml`, found to hold plain values and to name only what may be built of them.

    It says so of names alone, without importing anything; `check_objects` judges what is behind the names.

    Args:
        run_dir: as the user gave it.
        to_train: the whole of it is to be built and trained, not just `PARTS` to be looked at.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    content, path = read_values(run_dir), run_dir / "config.yaml"
    for key in ("defaults", "hydra"):
        if key in content:
            raise InputError(f"{path}: {key} is not recorded of a run, and not taken from one")
    for key, value in _leaves(content):
        if isinstance(value, str) and "${" in value:
            raise InputError(f"{path}: {key}={value}: a recorded run has values, no interpolations")
        if to_train and _says_where_to_write(key, value):
            raise InputError(f"{path}: {key}={value}: a recorded run writes into its own directory alone")
    if to_train:
        check_value("name", content.get("name"))
    for key, name in _targets(content, to_train):
        is_public = isinstance(name, str) and not any(part.startswith("_") for part in name.split("."))
        if not is_public or not _is_below(name, (*_packages(key), *ALIASES)):
            raise _refusal(path, key, name)
    try:
        return OmegaConf.create(content)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: not a configuration: {str(error).splitlines()[0]}") from error


def read_values(run_dir: Path) -> dict[str, Any]:
    """What a run directory's `config.yaml` holds, for whoever builds nothing of it: small, and plain values alone.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run_dir}: no run directory, it holds no config.yaml")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: larger than {LARGEST:,} bytes, which no run's configuration is")
    try:
        text = path.read_text(encoding="utf-8")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            # A few lines of references could grow to gigabytes; a tag could make what is neither list nor mapping.
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise InputError(f"{path}: holds references, tags or deep nesting, as no recorded run does")
        content = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not a configuration: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in PARTS):
        raise InputError(f"{path}: not the configuration of a run, which has data, model and task")
    return content


def check_objects(run_dir: Path, cfg: DictConfig, to_train: bool = False) -> None:
    """Judge every `_target_` of `read_config`'s on the object behind the name: a class made in one of the packages.

    Raises:
        InputError: it is something else, or nothing.
    """
    for key, name in _targets(OmegaConf.to_container(cfg), to_train):
        try:
            target = get_object(name)
        except Exception as error:  # whatever a stranger's name may lead to
            raise _refusal(run_dir / "config.yaml", key, name) from error
        is_schedule = inspect.isfunction(target) and target.__module__ == WITH_FUNCTIONS
        is_known = (inspect.isclass(target) or is_schedule) and isinstance(target.__module__, str)
        if not is_known or not _is_below(f"{target.__module__}.{target.__qualname__}", _packages(key)):
            raise _refusal(run_dir / "config.yaml", key, name)


def check_links(run_dir: Path) -> None:
    """What is written into a run directory stays there.

    Raises:
        InputError: a link in it leads elsewhere.
    """
    for path in run_dir.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(run_dir.resolve()):
            raise InputError(f"{path}: a link that leads out of the run directory; put there what it leads to")


def _refusal(path: Path, key: str, name: Any) -> InputError:
    return InputError(
        f"{path}: {key}={name}: not a class that a recorded run may be built of; packages are added in "
        "src/litmlp/runs/trust.py"
    )


def _packages(key: str) -> Sequence[str]:
    return REOPENED if key.partition(".")[0] in PARTS else TRAINED


def _is_below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _says_where_to_write(key: str, value: Any) -> bool:
    section, *names = key.split(".")
    names_a_place = isinstance(value, str) and (leads_outside(value) or names[-1:] == ["dirpath"])
    return bool(names) and section not in PARTS and (names_a_place or "_args_" in names)


def _targets(content: Any, to_train: bool) -> Iterator[tuple[str, Any]]:
    for key, value in _leaves(content if to_train else {part: content[part] for part in PARTS}):
        if key.rpartition(".")[2] == "_target_":
            yield key, value


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that is neither a mapping nor a list; of a `_target_`, whatever it is."""
    if key.rpartition(".")[2] != "_target_" and isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node
