"""Names of runs and of the jobs of a sweep, and the recorded command with which a sweep is resumed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from runwright.config.errors import InputError
from runwright.config.keys import KEYS
from runwright.rundir.durable import write
from runwright.rundir.files import SWEEP
from runwright.rundir.read import REOPENED_PARTS, read_yaml
from runwright.rundir.trust import STRING_ARGUMENTS, WRITERS, is_plain

LONGEST_NAME = 100  # characters in a directory name; file systems allow 255 bytes

PLACES = ("hydra.sweep.dir=", "resume=")
# Settings and choices of Hydra that a recorded command may have, besides numbers for the search.
LAUNCHER = tuple(f"hydra.launcher.{name}" for name in ("n_jobs", "partition", "account", "timeout_min"))
HYDRAS_CHOICES = ("hydra/launcher", "hydra/sweeper")


def job_name(number: int, overrides: Sequence[str], sweep_dir: Path) -> str:
    """Name of a job's directory: its number and the overrides that the sweep varies, safe for a path."""
    return _safe(f"{number}-{','.join(varied(overrides, sweep_dir))}")


def run_name(overrides: Sequence[str]) -> str:
    """The overrides in the name of a single run's directory, without those that do not belong there, such as `name`."""
    unnamed = tuple(f"{name}=" for name, row in KEYS.items() if not row.in_run_names)
    named = [each for each in overrides if not each.startswith((*unnamed, "hydra"))]
    key = "init_from="  # a whole path would leave no room for the rest
    named = [key + Path(each.removeprefix(key).strip("'")).name if each.startswith(key) else each for each in named]
    return _safe(",".join(named))


def is_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def varied(overrides: Any, sweep_dir: Path) -> list[str]:
    """The overrides of a job that its sweep does not give to all jobs."""
    # Iterating over an OmegaConf list would resolve references in the overrides.
    typed: list[str] = OmegaConf.to_container(overrides) if OmegaConf.is_list(overrides) else overrides  # type: ignore[assignment]
    path = sweep_dir / SWEEP
    fixed = _recorded(path)[1] if path.exists() else []
    return [each for each in typed if each not in fixed and not each.startswith("resume=")]


def _safe(name: str) -> str:
    name = re.sub(r"[^\w.,=+-]+", "_", re.sub(r"[\[\]'\"]", "", name)).rstrip("-")
    if len(name) > LONGEST_NAME:  # cut after a whole override, if one fits
        name = name[: LONGEST_NAME + 1].rpartition(",")[0] or name[:LONGEST_NAME]
    return name


def record_command(sweep_dir: Path, command: Mapping[str, Any], is_new: bool = False) -> None:
    """Create the sweep's directory and record its command there: `config_name` and `overrides`.

    Raises:
        FileExistsError: `is_new`, and the directory has a command already.
    """
    sweep_dir.mkdir(parents=True, exist_ok=True)
    write(sweep_dir / SWEEP, yaml.safe_dump(dict(command)).encode(), exclusive=is_new)


def is_sweep(directory: Path) -> bool:
    return (directory / SWEEP).is_file()


def read_command(sweep_dir: Path) -> tuple[str | None, list[str]]:
    """Configuration name and overrides of a recorded command, without `PLACES`.

    Raises:
        InputError: it is damaged, or has overrides that are not safe in a command that may be someone else's.
    """
    path = sweep_dir / SWEEP
    config_name, overrides = _recorded(path)
    for override in overrides:
        if not override.startswith((*PLACES, "from=")) and not may_be_repeated(override):
            raise InputError(
                f"{path}: {override}: not taken from a file; "
                f"type the sweep's command again, with hydra.sweep.dir={sweep_dir} resume=auto"
            )
    return config_name, [each for each in overrides if not each.startswith(PLACES)]


def may_be_repeated(text: str) -> bool:
    """Whether a recorded override, which may be someone else's, only sets values and choices of conf/."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return False
    if override.package is not None:
        return False
    return all(_may_be_set(name, value) for name, value in _leaves(override.key_or_group, override.value()))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Key and value of each value in a parsed override, including those in mappings, lists and sweeps."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(f"{name}.{_text(key)}", each)
    elif isinstance(value, list | ChoiceSweep):
        for each in value if isinstance(value, list) else value.list:
            yield from _leaves(name, each)
    else:
        yield name, _text(value)


def _text(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value


def _may_be_set(name: str, value: Any) -> bool:
    section, *names = name.split(".")
    if any(not each or each.startswith("_") for each in (section, *names)) or "${" in str(value):
        return False
    is_safe = not isinstance(value, str) or is_plain(value)
    if section == "hydra":
        if names[:2] == ["sweeper", "params"]:  # keys of the jobs, with values to try
            key = ".".join(names[2:])
            return may_be_repeated(f"{key}={value}") if isinstance(value, str) else _may_be_set(key, value)
        is_of_search = names[:1] == ["sweeper"] and not isinstance(value, str)
        return is_of_search or (name in LAUNCHER and is_safe)
    if not names:  # a choice, or a top-level value
        return name == "init_from" or (is_safe and ("/" not in name or name in HYDRAS_CHOICES))
    if section in REOPENED_PARTS:
        return True
    return is_safe and (not isinstance(value, str) or section not in WRITERS or names[-1] in STRING_ARGUMENTS)


def _recorded(path: Path) -> tuple[str | None, list[str]]:
    try:
        content = read_yaml(path)
        config_name, overrides = content["config_name"], content["overrides"]
        are_overrides = isinstance(overrides, list) and all(isinstance(each, str) for each in overrides)
        if not re.fullmatch(r"\w+", config_name or "train") or not are_overrides:
            raise ValueError
    except (ValueError, LookupError, TypeError):
        raise InputError(f"{path}: not the command of a sweep") from None
    return config_name, overrides
