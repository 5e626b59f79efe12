"""How parallel jobs of a sweep share one machine."""

import os
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from runwright.config.errors import InputError
from runwright.rundir.files import SLOT


def check_launcher(launcher: DictConfig) -> None:
    """Raise an InputError if this machine lacks what the launcher needs."""
    if launcher._target_.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise InputError("hydra/launcher=slurm: there is no srun here; submitit_local runs such jobs without SLURM")


def share_machine(launcher: DictConfig, sweep_dir: Path, num_processes: int) -> None:
    """In a worker process of joblib: choose GPUs that the other workers do not use, and exit when joblib does.

    Joblib has already divided the CPU threads, with OMP_NUM_THREADS. If there are more processes than GPUs, they share.
    """
    if "joblib" in launcher._target_:
        _join_pool(sweep_dir, num_processes)


@cache  # once per process, which runs several jobs: CUDA reads CUDA_VISIBLE_DEVICES only once
def _join_pool(sweep_dir: Path, num_gpus: int) -> FileLock | None:
    """The lock on this process's slot, to be held until the process ends; None without GPUs."""
    os.environ["TTY_COMPATIBLE"] = "0"  # rich prints lines: progress bars of several jobs overwrite each other
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    from torch import cuda

    if not cuda.is_available():
        return None
    slot, lock = take_slot(sweep_dir)
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = devices if devices != [""] else [str(i) for i in range(cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(slot, num_gpus, names))
    return lock


def gpus_of(slot: int, num_gpus: int, names: Sequence[str]) -> list[str]:
    """The GPUs of a slot, `num_gpus` per job: assigned round robin."""
    return [names[(slot * num_gpus + i) % len(names)] for i in range(min(num_gpus, len(names)))]


def take_slot(sweep_dir: Path) -> tuple[int, FileLock]:
    """The lowest slot number that no other running process of this sweep holds, and its lock."""
    for number in count():
        lock = FileLock(sweep_dir / SLOT.format(number), blocking=False)
        with suppress(Timeout):
            lock.acquire()
            return number, lock
    raise AssertionError  # for mypy: count() has no end


def remove_slots(sweep_dir: Path) -> None:
    """After the sweep, remove the slots that no process of another sweep in the same directory holds."""
    for file in sweep_dir.glob(SLOT.format("*")):
        with suppress(Timeout), FileLock(file, blocking=False):
            file.unlink(missing_ok=True)


def _end_with(parent: int) -> None:
    """Exit once the parent process has ended; joblib's workers would finish the job first."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
