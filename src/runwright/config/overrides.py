"""What can be known of a command line without torch: groups, choices, keys, and the kind of each value."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runwright.config.errors import InputError, nearest
from runwright.config.keys import EXTRAS, GLOBAL_GROUPS, ONE_FOR_ALL, key
from runwright.config.values import check_value
from runwright.config.walk import as_typed

NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
LARGEST = 2**63  # beyond which torch and NumPy fail in the middle of a run


@dataclass(frozen=True)
class Setting:
    """One override with one value: a sweep's override becomes several."""

    key: str  # with its prefix (+, ++, ~), as Hydra spells it
    text: str | None  # of the value, as typed; None for a deletion without value
    value: Any

    def __str__(self) -> str:
        return self.key if self.text is None else f"{self.key}={self.text}"


@dataclass(frozen=True)
class Job:
    """What one job of a command line sets."""

    settings: list[Setting]
    chosen: DictConfig  # as composed of those settings that decide which YAML values there are
    others: list[Setting]

    @property
    def overrides(self) -> list[str]:
        return [str(setting) for setting in self.settings]

    def compose(self, config_name: str) -> DictConfig:
        """Compose the job, inside `hydra.initialize_config_dir`; what Hydra objects to becomes an InputError.

        `hydra.overrides` and what is made of it may lack some: this is to see whether the job can be built.
        """
        if any(setting.key[0] in "+~" for setting in self.others):
            return compose_or_complain(config_name, self.overrides)
        cfg = copy.deepcopy(self.chosen)  # twenty times as fast as to compose another
        try:
            for setting in self.others:
                OmegaConf.update(cfg, setting.key, setting.value, merge=True)
        except NOT_COMPOSED:  # which Hydra says better
            return compose_or_complain(config_name, self.overrides)
        return cfg


def check_overrides(config_name: str, overrides: list[str], multirun: bool = False) -> tuple[list[Job], bool]:
    """Check a command line against conf/, inside `hydra.initialize_config_dir`.

    Returns:
        Some jobs that between them hold each value at least once, and whether it is a sweep. A grid of many values is
        not multiplied out: each value is combined with the others' first.

    Raises:
        InputError: an unknown group, choice or key, or a value of another kind than the one it replaces.
    """
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    try:
        parsed = parser.parse_overrides(overrides)
        if nameless := next((override.input_line for override in parsed if not override.key_or_group), None):
            raise OverrideParseException(nameless, "no key")
        choice = next((override for override in parsed if _is_group(loader, override)), None)
        if config_name == "from" and choice is not None:
            raise InputError(
                f"{choice.input_line}: a recorded run has values, not choices; change its values one by one"
            )
        if not any(override.key_or_group == "hydra.searchpath" for override in parsed):
            _check_groups(loader, parsed)  # else choices may lie in folders that only composing looks into
        kept = [str(next(_settings(override))) for override in parsed if _shapes_reference(loader, override)]
        first = compose(config_name, kept, return_hydra_config=True)
        sweeper_params = OmegaConf.select(first, "hydra.sweeper.params") or {}
        typed = {override.get_key_element() for override in parsed}
        from_config = parser.parse_overrides([f"{k}={v}" for k, v in sweeper_params.items() if k not in typed])
        _check_groups(loader, from_config)
        is_sweep = multirun or str(OmegaConf.select(first, "hydra.mode")) == "RunMode.MULTIRUN"
    except NOT_COMPOSED as error:
        raise InputError(_hydra_sentence(error)) from error
    for group in GLOBAL_GROUPS:
        if group in first:
            raise InputError(f"{group}: its file must hold keys and values, after the line `# @package _global_`")
    several = next((override for override in parsed if override.is_sweep_override()), None)
    if several is not None and not is_sweep:
        name, values = several.get_key_element(), several.input_line.partition("=")[2] if several.input_line else ""
        raise InputError(f"{name}={values}: several values take --multirun (-m); a list is written {name}=[{values}]")

    options = [list(_settings(override)) for override in [*from_config, *parsed]]
    shaping = {o.get_key_element() for o in [*from_config, *parsed] if _shapes_reference(loader, o)}
    references = {tuple(kept): first}
    combinations = [[alternatives[0] for alternatives in options]]
    for i, alternatives in enumerate(options):
        combinations += [[*combinations[0][:i], other, *combinations[0][i + 1 :]] for other in alternatives[1:]]
    jobs = []
    for settings in combinations:
        chosen = tuple(str(setting) for setting in settings if setting.key in shaping)
        if chosen not in references:
            references[chosen] = compose_or_complain(config_name, list(chosen))
        others = [setting for setting in settings if setting.key not in shaping]
        for setting in others:
            if setting.key[0] not in "+~":
                _check_value(references[chosen], setting)
        jobs.append(Job(settings, references[chosen], others))
    return jobs, is_sweep


def compose_or_complain(config_name: str, overrides: list[str]) -> DictConfig:
    """Compose, inside `hydra.initialize_config_dir`; what Hydra objects to becomes an InputError."""
    try:
        return compose(config_name, overrides, return_hydra_config=True)
    except NOT_COMPOSED as error:
        raise InputError(_hydra_sentence(error)) from error


def _is_group(loader: ConfigLoader, override: Override) -> bool:
    return bool(loader.get_group_options(override.key_or_group))


def _shapes_reference(loader: ConfigLoader, override: Override) -> bool:
    """Whether an override decides which YAML values the others are compared with."""
    return _is_group(loader, override) or override.is_hydra_override()


def _settings(override: Override) -> Iterator[Setting]:
    name = override.get_key_element()
    if override.is_discrete_sweep():
        parse = OverridesParser.create().parse_override  # as Hydra will parse them, which takes their quotes off
        for text in override.sweep_string_iterator():
            yield Setting(name, text, parse(f"{name}={text}").value())
    elif override.is_sweep_override():  # an interval: its ends stand for what lies between
        interval: Any = override.value()
        yield Setting(name, str(interval.start), interval.start)
        yield Setting(name, str(interval.end), interval.end)
    elif override.is_delete() and override.value() in (None, ""):
        yield Setting(name, None, None)
    else:
        single: Any = override.value()
        text = as_typed(single) if isinstance(single, bool) else override.get_value_element_as_str()
        yield Setting(name, text, single)


def _check_groups(loader: ConfigLoader, overrides: list[Override]) -> None:
    for override in overrides:
        if not _is_group(loader, override) or override.is_delete():
            continue
        choices = loader.get_group_options(override.key_or_group)
        for setting in _settings(override):
            for choice in setting.value if isinstance(setting.value, list) else [setting.value]:
                if choice is None:
                    raise InputError(f"{setting}: name a choice, or leave the group out with ~{override.key_or_group}")
                if str(choice) not in choices:
                    extra = EXTRAS.get(f"{override.key_or_group}={choice}")
                    if extra is not None:
                        raise InputError(f"{override.key_or_group}={choice}: uv sync --extra {extra} installs it")
                    raise InputError(
                        f"{override.key_or_group}={choice}: there is no such choice{nearest(str(choice), choices)}\n"
                        f"choices of {override.key_or_group}: {', '.join(choices)}"
                    )


def _check_value(cfg: DictConfig, setting: Setting) -> None:
    parent = ""
    old: Any = cfg
    for name in setting.key.split("."):
        if not isinstance(old, DictConfig):
            return  # inside a list or a value: Hydra's to judge
        if name not in old:
            known = [str(key) for key in old if not str(key).startswith("_") and key != "hydra"]
            raise InputError(
                f"{setting}: there is no key {setting.key}{nearest(name, known) or f'; +{setting} would add it'}\n"
                f"{f'keys of {parent}' if parent else 'groups and keys'}: {', '.join(known)}"
            )
        parent = f"{parent}.{name}" if parent else name
        try:
            old = OmegaConf.select(cfg, parent)
        except OmegaConfBaseException:  # an interpolation that only a running job resolves, to a string
            old = ""
    if OmegaConf.is_config(old):
        old = OmegaConf.to_container(old)
    if isinstance(setting.value, float) and not math.isfinite(setting.value):
        raise InputError(f"{setting}: not a finite number")
    if isinstance(setting.value, int | float) and abs(setting.value) >= LARGEST:
        raise InputError(f"{setting}: too large a number")
    if not _takes(setting.key, old, setting.value):
        hint = f"; write {setting.key}=[{setting.text}]" if isinstance(old, list) else ""
        kinds = " or ".join(key(setting.key).kinds) if old is None else _kind(old)
        raise InputError(f"{setting}: this takes {kinds} (now {as_typed(old)}), not {_kind(setting.value)}{hint}")
    if not (isinstance(setting.value, str) and "${" in setting.value):
        check_value(setting.key, setting.value)


def _takes(name: str, old: Any, new: Any) -> bool:
    """Whether a value may take another's place: the same kind, or one that constructors commonly take beside it."""
    if _kind(new) in key(name).kinds:
        return True
    if old is None:
        return new is None or not key(name).kinds
    if new is None:  # what is a list or a name may be left out, a number or a switch not
        return isinstance(old, list | str)
    if isinstance(new, str) and new.startswith("${"):
        return True
    if _kind(old) == "a number" and isinstance(new, list):  # one for each in place of one for all
        return not name.startswith(ONE_FOR_ALL) and all(_kind(element) == "a number" for element in new)
    if isinstance(old, list) and _kind(new) == "a number":  # the reverse, but not for a list of sizes
        return any(isinstance(element, float) for element in old)
    return _kind(old) == _kind(new)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return {str: "a string", list: "a list", dict: "a mapping", type(None): "null"}.get(type(value), "a value")


def _hydra_sentence(error: Exception) -> str:
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not key=value; a list is written [a,b], and text with other signs in quotes: 'a b'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: there is no such choice{nearest(choice, error.options)}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, UnicodeDecodeError):
        return f"a configuration file is not UTF-8: {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "\n".join(line for line in lines if not line.startswith(("See https", "full_key", "object_type")))[:400]
