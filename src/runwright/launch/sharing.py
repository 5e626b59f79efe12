"""What the jobs of a sweep that run side by side share of one machine."""

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
    """Raise InputError where this machine lacks what it takes."""
    if launcher._target_.endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise InputError("hydra/launcher=slurm: there is no srun here; submitit_local runs such jobs without SLURM")


def share_machine(launcher: DictConfig, sweep_dir: Path, num_processes: int) -> None:
    """In a process that joblib runs jobs of a sweep in: take GPUs that its neighbours leave alone, and end with joblib.

    Joblib has divided the CPU's threads already, by OMP_NUM_THREADS. Where there are more processes than GPUs, they
    share.
    """
    if "joblib" in launcher._target_:
        _join_pool(sweep_dir, num_processes)


@cache  # once: a process runs one job after the other, and CUDA reads CUDA_VISIBLE_DEVICES once
def _join_pool(sweep_dir: Path, num_gpus: int) -> FileLock | None:
    """The lock on this process's slot, to be held as long as it lives."""
    os.environ["TTY_COMPATIBLE"] = "0"  # rich then prints lines, as to a file: bars would overwrite each other
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
    """The GPUs of a slot whose jobs take `num_gpus` each: from the next ones on, round and round."""
    return [names[(slot * num_gpus + i) % len(names)] for i in range(min(num_gpus, len(names)))]


def take_slot(sweep_dir: Path) -> tuple[int, FileLock]:
    """The lowest number that no other living process of this sweep has, and the lock by which it is held."""
    for number in count():
        lock = FileLock(sweep_dir / SLOT.format(number), blocking=False)
        with suppress(Timeout):
            lock.acquire()
            return number, lock
    raise AssertionError  # count() has no end


def remove_slots(sweep_dir: Path) -> None:
    """After the sweep: those that no process of another one in the same directory holds."""
    for file in sweep_dir.glob(SLOT.format("*")):
        with suppress(Timeout), FileLock(file, blocking=False):
            file.unlink(missing_ok=True)


def _end_with(parent: int) -> None:
    """End this process once its parent has, which joblib's own would do only after the job."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
