"""The differences between a run's configuration and the defaults."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runwright.config.keys import GLOBAL_GROUPS, key
from runwright.config.overrides import NOT_COMPOSED
from runwright.config.walk import as_typed

Differences = dict[str, tuple[str, str]]  # key -> the default value and the run's, as typed
ABSENT = "-"


def differences_from_defaults(cfg: DictConfig, overrides: Sequence[str]) -> Differences:
    """The groups in which a job differs from the default choices, and the values that differ from its choices' files.

    A run started with `from=` or `resume=` has no choices except those in `overrides`, so its other groups are compared
    value by value. For a run that Hydra has not started, the overrides are returned.
    """
    typed = {name: (ABSENT, value) for name, _, value in (each.partition("=") for each in overrides)}
    typed.pop("resume", None)
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    is_recorded = hydra is not None and hydra.job.config_name == "from"
    if hydra is None or not (typed or is_recorded):
        return typed
    folder = next(each.path for each in hydra.runtime.config_sources if each.provider == "main") or ""
    config_name = "train" if is_recorded else hydra.job.config_name
    usual = _usual_choices(Path(folder, f"{config_name}.yaml"))
    choices = {group: value for group, (_, value) in typed.items()} if is_recorded else hydra.runtime.choices
    chosen = {group: (usual[group], choice) for group, choice in choices.items() if group in usual}
    chosen = {group: choices for group, choices in chosen.items() if choices[0] != choices[1]}
    parts = [f"{group}={choice}" for group, (_, choice) in chosen.items() if group not in GLOBAL_GROUPS]
    search = [each for each in hydra.overrides.hydra if each.startswith("hydra.searchpath=")]
    try:
        reference = _compose(folder, config_name, (*search, *parts))
    except NOT_COMPOSED:  # a choice that only the original command's search path finds
        return typed
    own: Any = OmegaConf.to_container(cfg)
    found = {group: (as_typed(old), as_typed(new)) for group, (old, new) in chosen.items()}
    for name, old, new in _differing(reference, own, cfg):
        if key(name).in_differences:
            found.setdefault(name, (old, new))
    sections = list(dict.fromkeys([*GLOBAL_GROUPS, *reference, *own]))
    ordered = sorted(found, key=lambda name: sections.index(name.partition(".")[0]))
    return {name: found[name] for name in ordered}


def _usual_choices(file: Path) -> dict[str, Any]:
    defaults = yaml.safe_load(file.read_text())["defaults"] if file.is_file() else []
    choices = {group: choice for entry in defaults if isinstance(entry, dict) for group, choice in entry.items()}
    return {group: choice for group, choice in choices.items() if not group.startswith(("optional ", "override "))}


@cache  # most jobs of a sweep make the same choices
def _compose(folder: str, config_name: str, overrides: tuple[str, ...]) -> Any:
    is_job_of_hydra = GlobalHydra.instance().is_initialized()  # other processes of a run are not
    with nullcontext() if is_job_of_hydra else initialize_config_dir(folder, version_base="1.3"):
        return OmegaConf.to_container(compose(config_name, list(overrides)))


def _differing(old: Any, new: Any, cfg: DictConfig, name: str = "") -> Iterator[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for each in {**old, **new}:
            inner = f"{name}.{each}" if name else each
            yield from _differing(old.get(each, ABSENT), new.get(each, ABSENT), cfg, inner)
    elif _value(old, cfg) != _value(new, cfg):
        yield name, _short(old), _short(new)


def _value(value: Any, cfg: DictConfig) -> Any:
    """Resolve references to other values, because runs in several processes get them resolved."""
    if not (isinstance(value, str) and "${" in value):
        return value
    try:
        return OmegaConf.create({"value": value}, parent=cfg).value
    except OmegaConfBaseException:
        return value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("_target_", "{}")).rpartition(".")[2]
    return as_typed(value)
