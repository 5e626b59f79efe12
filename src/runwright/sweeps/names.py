"""What runs and the jobs of a sweep are called, and the command by which a sweep can be resumed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from runwright.config.errors import InputError
from runwright.config.keys import KEYS
from runwright.rundir.durable import write
from runwright.rundir.files import SWEEP
from runwright.rundir.read import read_yaml

LONGEST_NAME = 100  # of a directory; file systems take 255 bytes

PLACES = ("hydra.sweep.dir=", "resume=")
# Of a recorded command, which may be a stranger's, what could name other code, places or commands than the project's.
NOT_REPEATED = re.compile(
    r"_target_|_args_|dirpath|\$\{|searchpath|"
    r"^[+~]*hydra(?!/launcher=|/sweeper=|\.sweep\.dir=|\.sweeper\.|\.launcher\.(n_jobs|partition|account|timeout_min)=)"
)


def job_name(number: int, overrides: Sequence[str], sweep_dir: Path) -> str:
    """Name of a job's directory: its number, and the overrides that its sweep varies, in letters safe for a path."""
    return _safe(f"{number}-{','.join(varied(overrides, sweep_dir))}")


def run_name(overrides: Sequence[str]) -> str:
    """What the name of a single run's directory tells: what was typed for it, but for the name of the folder above."""
    unnamed = tuple(f"{name}=" for name, row in KEYS.items() if not row.in_run_names)
    named = [each for each in overrides if not each.startswith((*unnamed, "hydra"))]
    key = "init_from="  # of which a whole path would leave no room for the rest
    named = [key + Path(each.removeprefix(key).strip("'")).name if each.startswith(key) else each for each in named]
    return _safe(",".join(named))


def is_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def varied(overrides: Any, sweep_dir: Path) -> list[str]:
    """Of a job's overrides those that its sweep's command does not give to all of its jobs."""
    # A list of Hydra's would resolve the references in what was typed.
    typed: list[str] = OmegaConf.to_container(overrides) if OmegaConf.is_list(overrides) else overrides  # type: ignore[assignment]
    path = sweep_dir / SWEEP
    fixed = _recorded(path)[1] if path.exists() else []
    return [each for each in typed if each not in fixed and not each.startswith("resume=")]


def _safe(name: str) -> str:
    name = re.sub(r"[^\w.,=+-]+", "_", re.sub(r"[\[\]'\"]", "", name)).rstrip("-")
    if len(name) > LONGEST_NAME:  # whole overrides, where one fits
        name = name[: LONGEST_NAME + 1].rpartition(",")[0] or name[:LONGEST_NAME]
    return name


def record_command(sweep_dir: Path, command: Mapping[str, Any]) -> None:
    """Make the sweep's directory, with its command in it: `config_name` and `overrides`."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    write(sweep_dir / SWEEP, yaml.safe_dump(dict(command)).encode())


def is_sweep(directory: Path) -> bool:
    return (directory / SWEEP).is_file()


def read_command(sweep_dir: Path) -> tuple[str | None, list[str]]:
    """Name of the configuration and overrides of a sweep's command, without those that say where it goes.

    Raises:
        InputError: it is damaged, or holds what a stranger's command must not.
    """
    path = sweep_dir / SWEEP
    config_name, overrides = _recorded(path)
    for override in overrides:
        if NOT_REPEATED.search(override):
            raise InputError(
                f"{path}: {override}: not taken from a file; "
                f"type the sweep's command again, with hydra.sweep.dir={sweep_dir} resume=auto"
            )
    return config_name, [each for each in overrides if not each.startswith(PLACES)]


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
