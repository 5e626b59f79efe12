"""Check a command line without torch: groups, choices, keys, and the kind of each value."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runwright.config.composed import (
    MISSING,
    NULL,
    SECTIONS,
    check_keys,
    did_you_mean,
    missing_values,
    referenced_words,
)
from runwright.config.errors import InputError, nearest
from runwright.config.keys import EXTRAS, ONE_FOR_ALL, VALUES, key
from runwright.config.values import check_value
from runwright.config.walk import as_typed, kind_of

NOT_COMPOSED = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)
LARGEST = 2**63  # larger numbers make torch and NumPy fail in the middle of a run
Choices = Callable[[str], list[str]]  # of a group; none of what is no group


@dataclass(frozen=True)
class Setting:
    """One override with one value; a sweep's override becomes several of these."""

    key: str  # with its prefix (+, ++, ~), as Hydra spells it
    text: str | None  # the value as typed; None for a deletion without a value
    value: Any

    def __str__(self) -> str:
        return self.key if self.text is None else f"{self.key}={self.text}"


@dataclass(frozen=True)
class Job:
    """One job of a command line."""

    settings: list[Setting]
    chosen: DictConfig  # composed from the settings that choose YAML files
    others: list[Setting]
    missing: dict[str, str]
    """Keys without a value in the chosen files, each with its file."""

    @property
    def overrides(self) -> list[str]:
        return [str(setting) for setting in self.settings]

    def compose(self, config_name: str) -> DictConfig:
        """Compose the job, inside `hydra.initialize_config_dir`, to see whether it can be built.

        `hydra.overrides`, and values derived from it, may be incomplete.

        Raises:
            InputError: a value is missing, or Hydra refuses the job.
        """
        given = {setting.key.lstrip("+~") for setting in self.settings}
        for name, file in self.missing.items():
            if not any(name == each or name.startswith(f"{each}.") for each in given):
                raise InputError(f"{name}: {file} leaves its value open ({MISSING}); give one with {name}=VALUE")
        return self._composed(config_name)

    def _composed(self, config_name: str) -> DictConfig:
        if any(setting.key[0] in "+~" for setting in self.others):
            return compose_or_complain(config_name, self.overrides)
        cfg = copy.deepcopy(self.chosen)  # 20 times as fast as composing again
        try:
            for setting in self.others:
                OmegaConf.update(cfg, setting.key, setting.value, merge=True)
        except NOT_COMPOSED:  # composing gives a better message
            return compose_or_complain(config_name, self.overrides)
        return cfg


def check_overrides(config_name: str, overrides: list[str], multirun: bool = False) -> tuple[list[Job], bool]:
    """Check a command line against conf/, inside `hydra.initialize_config_dir`.

    Returns:
        Jobs that together contain each value at least once, and whether it is a sweep. A grid is not multiplied out:
        each value is combined with the first value of the other overrides.

    Raises:
        InputError: an unknown group, choice or key, or a value of a different kind than the one it replaces.
    """
    loader = GlobalHydra.instance().config_loader()
    choices_of: Choices = cache(loader.get_group_options)  # Hydra copies all that it has read for each answer
    parser = OverridesParser.create(config_loader=loader)
    try:
        parsed = parser.parse_overrides(overrides)
        _check_lengths(parsed)
        if nameless := next((override.input_line for override in parsed if not override.key_or_group), None):
            raise OverrideParseException(nameless, "no key")
        choice = next((override for override in parsed if _is_group(choices_of, override)), None)
        if config_name == "from" and choice is not None:
            raise InputError(
                f"{choice.input_line}: a recorded run has values, not choices; change its values one by one"
            )
        if not any(override.key_or_group == "hydra.searchpath" for override in parsed):
            _check_groups(choices_of, parsed)  # with one, choices may be in folders that only composing searches
        kept = [str(next(_settings(override))) for override in parsed if _shapes_reference(choices_of, override)]
        first = compose(config_name, kept, return_hydra_config=True)
        sweeper_params = OmegaConf.select(first, "hydra.sweeper.params") or {}
        typed = {override.get_key_element() for override in parsed}
        from_config = parser.parse_overrides([f"{k}={v}" for k, v in sweeper_params.items() if k not in typed])
        _check_lengths(from_config)
        _check_groups(choices_of, from_config)
        is_sweep = multirun or str(OmegaConf.select(first, "hydra.mode")) == "RunMode.MULTIRUN"
    except NOT_COMPOSED as error:
        raise InputError(_hydra_sentence(error)) from error
    own = _own_keys(loader, config_name) | referenced_words(" ".join(overrides))
    check_keys(first, own)
    several = next((override for override in parsed if override.is_sweep_override()), None)
    if several is not None and not is_sweep:
        name, values = several.get_key_element(), several.input_line.partition("=")[2] if several.input_line else ""
        raise InputError(f"{name}={values}: several values need --multirun (-m); a list is written {name}=[{values}]")

    options = [list(_settings(override)) for override in [*from_config, *parsed]]
    shaping = {o.get_key_element() for o in [*from_config, *parsed] if _shapes_reference(choices_of, o)}
    references = {tuple(kept): first}
    missing = {tuple(kept): missing_values(loader, config_name, kept, first)}
    combinations = [[alternatives[0] for alternatives in options]]
    for i, alternatives in enumerate(options):
        combinations += [[*combinations[0][:i], other, *combinations[0][i + 1 :]] for other in alternatives[1:]]
    jobs = []
    for settings in combinations:
        chosen = tuple(str(setting) for setting in settings if setting.key in shaping)
        if chosen not in references:
            references[chosen] = compose_or_complain(config_name, list(chosen))
            check_keys(references[chosen], own)
            missing[chosen] = missing_values(loader, config_name, list(chosen), references[chosen])
        others = [setting for setting in settings if setting.key not in shaping]
        known = {*VALUES, *SECTIONS, *own}
        for setting in others:
            if setting.key[0] == "~":
                _check_deletion(setting)
            else:
                _check_value(references[chosen], setting, known)
        jobs.append(Job(settings, references[chosen], others, missing[chosen]))
    return jobs, is_sweep


def compose_or_complain(config_name: str, overrides: list[str]) -> DictConfig:
    """Compose, inside `hydra.initialize_config_dir`; an error of Hydra's becomes an InputError."""
    try:
        return compose(config_name, overrides, return_hydra_config=True)
    except NOT_COMPOSED as error:
        raise InputError(_hydra_sentence(error)) from error


def _own_keys(loader: ConfigLoader, config_name: str) -> set[str]:
    """Top-level keys of the main configuration file, or of the recorded run."""
    if config_name == "from":
        recorded: Any = ConfigStore.instance().load("recorded.yaml").node
        return set(recorded)
    folders = [Path(source.path) for source in loader.get_sources() if source.provider == "main"]
    files = [folder / f"{name}.yaml" for folder in folders for name in ("train", config_name)]
    return {key for file in files if file.is_file() for key in yaml.safe_load(file.read_text(encoding="utf-8")) or {}}


def _is_group(choices_of: Choices, override: Override) -> bool:
    return bool(choices_of(override.key_or_group))


def _shapes_reference(choices_of: Choices, override: Override) -> bool:
    """Whether an override determines the YAML values that the other overrides are checked against."""
    return _is_group(choices_of, override) or override.is_hydra_override()


def _settings(override: Override) -> Iterator[Setting]:
    name = override.get_key_element()
    if override.is_discrete_sweep():
        parse = OverridesParser.create().parse_override  # as Hydra will parse them: removes quotes
        for text in override.sweep_string_iterator():
            yield Setting(name, text, parse(f"{name}={text}").value())
    elif override.is_sweep_override():  # an interval: checking both ends is enough
        interval: Any = override.value()
        yield Setting(name, str(interval.start), interval.start)
        yield Setting(name, str(interval.end), interval.end)
    elif override.is_delete() and override.value() in (None, ""):
        yield Setting(name, None, None)
    else:
        single: Any = override.value()
        text = as_typed(single) if isinstance(single, bool) else override.get_value_element_as_str()
        yield Setting(name, text, single)


def _check_lengths(overrides: list[Override]) -> None:
    for override in overrides:
        if override.is_discrete_sweep() and next(override.sweep_string_iterator(), None) is None:
            raise InputError(f"{override.input_line}: there is no value in it")


def _check_groups(choices_of: Choices, overrides: list[Override]) -> None:
    for override in overrides:
        if not _is_group(choices_of, override) or override.is_delete():
            continue
        choices = choices_of(override.key_or_group)
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


def _check_deletion(setting: Setting) -> None:
    name = setting.key.removeprefix("~")
    if name in VALUES:
        raise InputError(f"{setting}: a run reads {name}; set it to another value instead")


def _check_value(cfg: DictConfig, setting: Setting, known: set[str]) -> None:
    """Check a value against the one it replaces; for an added key, check that something reads it.

    Args:
        cfg: the configuration with the old values.
        setting: the setting to check.
        known: top-level keys that may be added.
    """
    name, parent = setting.key.lstrip("+"), ""
    is_added = name != setting.key
    if setting.text == NULL:
        raise InputError(f"{setting}: None is read as a string; write {setting.key}=null")
    old: Any = cfg
    for part in name.split("."):
        if not isinstance(old, DictConfig):
            return  # inside a list or a value: Hydra checks it
        if part not in old:
            if is_added and (parent or part in known or part in referenced_words(str(cfg))):
                return  # the constructor checks it
            raise InputError(_no_such_key(old, setting, parent, part, cfg))
        is_missing = OmegaConf.is_missing(old, part)
        parent = f"{parent}.{part}" if parent else part
        try:
            old = OmegaConf.select(cfg, parent)
        except OmegaConfBaseException:  # an interpolation that only a running job can resolve, to a string
            old = ""
    if OmegaConf.is_config(old):
        old = OmegaConf.to_container(old)
    if isinstance(setting.value, float) and not math.isfinite(setting.value):
        raise InputError(f"{setting}: not a finite number")
    if isinstance(setting.value, int | float) and abs(setting.value) >= LARGEST:
        raise InputError(f"{setting}: too large a number")
    if not is_missing and not _takes(name, old, setting.value):
        hint = f"; write {setting.key}=[{setting.text}]" if isinstance(old, list) else ""
        kinds = " or ".join(key(name).kinds) if old is None else kind_of(old)
        raise InputError(f"{setting}: this takes {kinds} (now {as_typed(old)}), not {kind_of(setting.value)}{hint}")
    if not (isinstance(setting.value, str) and "${" in setting.value):
        check_value(name, setting.value)


def _no_such_key(section: DictConfig, setting: Setting, parent: str, part: str, cfg: DictConfig) -> str:
    name = setting.key.lstrip("+")
    known = [str(each) for each in section if not str(each).startswith("_") and each != "hydra"]
    hint = nearest(part, known) or did_you_mean(name.rpartition(".")[2], cfg)
    target = section.get("_target_") if parent else None
    if not hint and isinstance(target, str):
        hint = f"; if {target} takes one, +{name}={setting.text} adds it"
    listed = f"keys of {parent}" if parent else "groups and keys"
    return f"{setting}: there is no key {name}{hint}\n{listed}: {', '.join(known)}"


def _takes(name: str, old: Any, new: Any) -> bool:
    """Whether a value may replace another: the same kind, or one that constructors commonly accept instead."""
    if kind_of(new) in key(name).kinds:
        return True
    if old is None:
        return new is None or not key(name).kinds
    if new is None:  # null may replace a list or a name, but not a number or a switch
        return isinstance(old, list | str)
    if isinstance(new, str) and new.startswith("${"):
        return True
    if kind_of(old) == "a number" and isinstance(new, list):  # one number for each instead of one for all
        return not name.startswith(ONE_FOR_ALL) and all(kind_of(element) == "a number" for element in new)
    if isinstance(old, list) and kind_of(new) == "a number":  # the reverse, but not for a list of sizes
        return any(isinstance(element, float) for element in old)
    return kind_of(old) == kind_of(new)


def _hydra_sentence(error: Exception) -> str:
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not key=value; a list is written [a,b], text with special characters 'a b'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: there is no such choice{nearest(choice, error.options)}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, UnicodeDecodeError):
        return f"a configuration file is not UTF-8: {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "\n".join(line for line in lines if not line.startswith(("See https", "full_key", "object_type")))[:400]
