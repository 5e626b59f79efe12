"""The jobs of one sweep: what their directories are called, and how those side by side share the machine."""

import fcntl
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from litmlp.runs.errors import InputError

SWEEP_FILE = "sweep.yaml"  # in a sweep's directory: its command's overrides, and which file they were composed with
LONGEST_NAME = 100  # of a job's directory; file systems take 255 bytes

PLACES = ("hydra.sweep.dir=", "resume=")
# Of a recorded command, which may be a stranger's, what could name other code, places or commands than the project's.
NOT_REPEATED = re.compile(
    r"_target_|_args_|dirpath|\$\{|searchpath|"
    r"^[+~]*hydra(?!/launcher=|/sweeper=|\.sweep\.dir=|\.sweeper\.|\.launcher\.(n_jobs|partition|account|timeout_min)=)"
)

_slot: IO[str] | None = None  # locked as long as this process lives


def job_dir(number: int, overrides: Sequence[str], sweep_dir: str) -> str:
    """Name of a job's directory: its number, and the overrides that its sweep varies, in letters safe for a path."""
    return _safe(f"{number}-{','.join(varied(overrides, Path(sweep_dir)))}")


def is_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def varied(overrides: Sequence[str], sweep_dir: Path) -> list[str]:
    """Of a job's overrides those that its sweep's command does not give to all of its jobs."""
    path = sweep_dir / SWEEP_FILE
    fixed = _recorded(path)[1] if path.exists() else []
    return [each for each in _typed(overrides) if each not in fixed and not each.startswith("resume=")]


def run_dir(time: str, overrides: Sequence[str]) -> str:
    """Name of a single run's directory: when it began, and what was typed for it beside the name of its folder."""
    unsaid = ("experiment=", "name=", "resume=", "data.root=", "print_config=", "report=")
    said = [each for each in _typed(overrides) if not each.startswith(unsaid)]
    key = "init_from="  # of which a whole path would leave no room for the rest
    said = [key + Path(each.removeprefix(key).strip("'")).name if each.startswith(key) else each for each in said]
    return _safe(f"{time}-{','.join(said)}")


def _typed(overrides: Any) -> list[str]:
    """A list of Hydra's would resolve the references in what was typed."""
    return OmegaConf.to_container(overrides) if OmegaConf.is_list(overrides) else overrides  # type: ignore[return-value]


def _safe(name: str) -> str:
    name = re.sub(r"[^\w.,=+-]+", "_", re.sub(r"[\[\]'\"]", "", name)).rstrip("-")
    if len(name) > LONGEST_NAME:  # whole overrides, where one fits
        name = name[: LONGEST_NAME + 1].rpartition(",")[0] or name[:LONGEST_NAME]
    return name


OmegaConf.register_new_resolver("job_dir", job_dir, replace=True)
OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def note(sweep_dir: Path, command: Mapping[str, Any] | None) -> None:
    """Make the sweep's directory, with its command in it."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    if command is not None:
        partial = sweep_dir / f".{SWEEP_FILE}.{os.getpid()}"  # several searches may share a directory
        partial.write_text(yaml.safe_dump(dict(command)))
        partial.replace(sweep_dir / SWEEP_FILE)


def is_sweep(directory: Path) -> bool:
    return (directory / SWEEP_FILE).is_file()


def command(sweep_dir: Path) -> tuple[str | None, list[str]]:
    """Name of the configuration and overrides of a sweep's command, without those that say where it goes.

    Raises:
        InputError: it is damaged, or holds what a stranger's command must not.
    """
    path = sweep_dir / SWEEP_FILE
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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        config_name, overrides = content["config_name"], content["overrides"]
        if not re.fullmatch(r"\w+", config_name or "train") or not all(isinstance(each, str) for each in overrides):
            raise ValueError
    except (yaml.YAMLError, ValueError, LookupError, TypeError):
        raise InputError(f"{path}: not the command of a sweep") from None
    return config_name, overrides


def check_launcher(launcher: DictConfig) -> None:
    """Raise InputError where this machine lacks what it takes."""
    if launcher._target_.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise InputError("hydra/launcher=slurm: there is no srun here; submitit_local runs such jobs without SLURM")


def share_machine(launcher: DictConfig, sweep_dir: Path, num_processes: int) -> None:
    """In a process that joblib runs jobs of a sweep in: take GPUs that its neighbours leave alone, and end with joblib.

    Runs print lines, for bars would overwrite each other. Joblib has divided the CPU's threads already,
    by OMP_NUM_THREADS. A process runs one job after the other, and CUDA reads CUDA_VISIBLE_DEVICES once, so a process
    keeps its GPUs; where there are more processes than GPUs, they share.
    """
    if "joblib" not in launcher._target_ or _slot is not None:
        return
    os.environ["TTY_COMPATIBLE"] = "0"  # rich then takes the output for a file
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    from torch import cuda

    if cuda.is_available():
        slot = take_slot(sweep_dir)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = devices if devices != [""] else [str(i) for i in range(cuda.device_count())]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(slot, num_processes, names))


def gpus_of(slot: int, num_gpus: int, names: Sequence[str]) -> list[str]:
    """The GPUs of a slot whose jobs take `num_gpus` each: from the next ones on, round and round."""
    return [names[(slot * num_gpus + i) % len(names)] for i in range(min(num_gpus, len(names)))]


def take_slot(sweep_dir: Path) -> int:
    """The lowest number that no other living process of this sweep has, for as long as this one lives."""
    global _slot
    number = 0
    while True:
        file = (sweep_dir / f".slot-{number}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            number += 1
        else:
            _slot = file
            return number


def _end_with(parent: int) -> None:
    """End this process once its parent has, which joblib's own would do only after the job."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
