"""Everything that a run records in its directory."""

import fcntl
import inspect
import json
import logging
import math
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from runwright import report
from runwright.config.errors import OccupiedError
from runwright.config.keys import KEYS, SETTINGS
from runwright.config.walk import as_typed, leaves_of
from runwright.loggers import tensorboard
from runwright.loggers.terminal import print_summary
from runwright.loggers.trackers import MLflow, WandB
from runwright.loop.pruning import Pruning
from runwright.rundir.create import check_free
from runwright.rundir.durable import write
from runwright.rundir.files import (
    CHECKPOINTS,
    CONFIG,
    CURVES_PICTURE,
    ERROR,
    LAST,
    METRICS,
    OVERRIDES,
    PROVENANCE,
    REPORT,
    RESULTS,
)
from runwright.rundir.read import read_overrides
from runwright.sweeps.names import is_job

log = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds for the processes of a run that was just killed to disappear
LIBRARIES = ("torch", "lightning", "torchmetrics", "hydra-core", "omegaconf")


@rank_zero_only
def check_new(run_dir: Path) -> None:
    """Raise OccupiedError if the directory is not free for a run."""
    check_free(run_dir, "hydra.run.dir")


@rank_zero_only
def start(run_dir: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Claim the run directory by writing `config.yaml`, resolved, and `overrides.yaml`, as typed.

    Raises:
        OccupiedError: the directory already holds a run.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        write(run_dir / CONFIG, _as_yaml(cfg), exclusive=True)
    except FileExistsError:
        check_new(run_dir)
        raise
    (run_dir / ERROR).unlink(missing_ok=True)  # left by an attempt that failed before this point
    _write_overrides(run_dir, overrides)


@rank_zero_only
def restart(run_dir: Path, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Record the values with which the run is resumed, and remove the files that mark it as finished."""
    before = read_overrides(run_dir)
    for name in (METRICS, RESULTS, ERROR, REPORT, CURVES_PICTURE):
        (run_dir / name).unlink(missing_ok=True)
    _write_overrides(run_dir, [*before, *overrides])
    write(run_dir / CONFIG, _as_yaml(cfg))


@contextmanager
def sole_writer(run_dir: Path) -> Iterator[None]:
    """Lock the directory, so that no other process trains its run meanwhile; with several processes, rank 0 does it.

    Raises:
        OccupiedError: another process holds the lock for more than `PATIENCE` seconds.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        yield
        return
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _try_lock(folder):
            if time.monotonic() > deadline:
                raise OccupiedError(f"{run_dir}: another process is training this run; let it end, or end it")
            time.sleep(0.1)
        yield
    finally:
        os.close(folder)


def _try_lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system that cannot lock directories
        pass
    return True


def _as_yaml(cfg: DictConfig) -> bytes:
    values = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "resume"])
    return OmegaConf.to_yaml(values, resolve=True).encode()


def _write_overrides(run_dir: Path, overrides: Iterable[str]) -> None:
    by_key = {override.partition("=")[0]: override for override in overrides}  # a later one replaces an earlier one
    by_key.pop("resume", None)
    write(run_dir / OVERRIDES, OmegaConf.to_yaml(list(by_key.values())).encode())


def log_hyperparameters(trainer: Trainer, cfg: DictConfig, metric_keys: Sequence[str]) -> None:
    """Log the settings to every logger; TensorBoard's HPARAMS tab joins them with the curves of `metric_keys`."""
    settings = hyperparameters(cfg)
    for logger in trainer.loggers:
        logger.log_hyperparams(settings)
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            monitored_first = sorted(metric_keys, key=lambda key: key != cfg.monitor)
            tensorboard.add_hyperparameters(logger, settings, monitored_first)


def hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """The settings that affect a run's results, by dotted key; classes by their names."""
    settings: dict[str, Any] = {"seed": cfg.seed}
    for section in SETTINGS:
        if cfg.get(section) is None:
            continue
        for key, value in leaves_of(cfg, section):
            parent, _, name = key.rpartition(".")
            if name == "_target_":
                settings[parent] = value.rpartition(".")[2]
            elif not name.startswith("_"):
                settings[key] = value if isinstance(value, int | float | str) else as_typed(value)
    for name in (name for name, row in KEYS.items() if row.is_setting):
        value = OmegaConf.select(cfg, name)
        settings[name] = as_typed(value) if value is None else value
    return settings


def metrics_of(trainer: Trainer) -> dict[str, float]:
    """The metrics logged by the stage that has just ended; learning rates are settings and left out."""
    return {key: float(value) for key, value in trainer.callback_metrics.items() if not key.startswith("lr/")}


def best_checkpoint(trainer: Trainer) -> str | None:
    """Path of the best checkpoint, or None if none was chosen by a monitored metric."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            return callback.best_model_path
    return None


def outcome_of_fit(trainer: Trainer, cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """The results of training; `best` is the monitored metric's best value, or its last without a best checkpoint."""
    metrics = metrics_of(trainer)
    chosen = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    scores = [
        each.best_model_score for each in chosen if each.monitor == cfg.monitor and each.best_model_score is not None
    ]
    best, last = best_checkpoint(trainer), run_dir / CHECKPOINTS / LAST
    return {
        "best": float(scores[0]) if scores else metrics.get(cfg.monitor),
        "fit": metrics,
        "test": {},
        "best_checkpoint": os.path.relpath(best, run_dir) if best else None,
        "last_checkpoint": os.path.relpath(last, run_dir) if last.exists() else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "stopped": _why_stopped(trainer),
    }


@rank_zero_only
def finish(
    run_dir: Path,
    cfg: DictConfig,
    trainer: Trainer,
    outcome: dict[str, Any],
    started: float,
    is_resumed: bool,
    last_validated: int | None,
) -> None:
    """Write `metrics.json` and the report, and print a summary; `last_validated` is the step of the last validation."""
    seconds = time.time() - started
    metrics = {
        "name": cfg.name,
        "monitor": cfg.monitor,
        "mode": cfg.mode,
        **outcome,
        "best_epoch": _epoch_of(run_dir / outcome["best_checkpoint"]) if outcome["best_checkpoint"] else None,
        "seconds": None if is_resumed else round(seconds, 2),  # a resumed run does not know the time of the whole run
        "seed": cfg.seed,
        "devices": trainer.world_size,
        "accelerator": type(trainer.accelerator).__name__.removesuffix("Accelerator").lower(),
        "settings": hyperparameters(cfg),
    }
    write(run_dir / METRICS, (json.dumps(_finite(metrics), indent=2, allow_nan=False) + "\n").encode())
    where = Path(os.path.relpath(run_dir)) if run_dir.is_relative_to(Path.cwd()) else run_dir
    places = [f"run directory: {where}"]
    if checkpoint := metrics["best_checkpoint"] or metrics["last_checkpoint"]:
        places.insert(0, f"{'best' if metrics['best_checkpoint'] else 'last'} checkpoint: {where / checkpoint}")
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers) and not is_job():
        places.append(
            f"curves: {shlex.join(['tensorboard', '--logdir', str(where)])}"
        )  # a sweep prints it once for all jobs
    places += [f"curves: {logger.shown_by}" for logger in trainer.loggers if isinstance(logger, MLflow | WandB)]
    if cfg.get("report") == "each" or (cfg.get("report") and not is_job()):
        places.append(report.report_line(where))
    duration = f"{seconds:.1f} s{' since it was resumed' if is_resumed else ''}"
    print_summary(metrics, duration, last_validated, places)


def _epoch_of(checkpoint: Path) -> int:
    """The checkpoint's epoch, from 0, read from the file because the user chooses its name."""
    return torch.load(checkpoint, weights_only=True, mmap=True, map_location="meta")["epoch"]


def _why_stopped(trainer: Trainer) -> str:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # undeclared
        if isinstance(callback, Pruning) and callback.reason:
            return callback.reason
    for callback in trainer.early_stopping_callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            reason = callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop.").removesuffix(".")
            return f"early stopping: {reason}"
    if trainer.max_steps == trainer.global_step:
        return "reached trainer.max_steps"
    if trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs:
        return "reached trainer.max_epochs"
    return "reached trainer.max_time" if trainer.should_stop else "stopped"


@rank_zero_only
def provenance(
    run_dir: Path, started: float, before: Sequence[dict[str, Any]], task: LightningModule
) -> dict[str, Any] | None:
    """Write when and with which code and versions the run starts or resumes, after `before`. Returns the git state."""
    git = _git_state(Path(inspect.getfile(type(task))).parent)
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "git": git,
        "versions": {"python": platform.python_version(), **_versions(type(task).__module__.partition(".")[0])},
    }
    write(run_dir / PROVENANCE, (json.dumps([*before, entry], indent=2) + "\n").encode())
    return git


def _versions(project: str) -> dict[str, str]:
    """Versions of the libraries, and of the project if it is installed under its package's name."""
    found = {}
    for name in (project, *LIBRARIES):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the code, and whether tracked files have changed since; None outside a git checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def _finite(value: Any) -> Any:
    """A copy with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
