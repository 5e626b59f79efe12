"""A run, top to bottom."""

import logging
import os
import secrets
import time
import warnings
from math import inf
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Trainer, seed_everything
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor
from omegaconf import DictConfig, OmegaConf, open_dict

from litmlp.data.in_memory import InMemoryData
from litmlp.profiler import NoProfiler
from litmlp.runs import record
from litmlp.runs.errors import InputError, blamed_on

warnings.filterwarnings(
    "ignore", message=".*LeafSpec.*"
)  # between Lightning 2.6.6 and torch 2.15, not the user's to mend
warnings.filterwarnings("ignore", message=".*Total length of `list`.*")  # an empty list of validation loaders is meant
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # the CSV logger finds config.yaml there
logging.getLogger("lightning").handlers.clear()  # Hydra's handlers print what it passes on
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its INFO is about devices and products
logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # and this a profiler's table


def train(cfg: DictConfig) -> float | None:
    """Train and test what the configuration says, into the job's directory.

    Returns:
        The monitored metric's best value, for a sweeper; None if nothing logged it.

    Raises:
        InputError: bad values, found before the first step.
    """
    started = time.time()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if cfg.seed is None:
        cfg.seed = secrets.randbelow(2**32)
    data, task, trainer = construct(cfg, run_dir)
    with blamed_on(cfg, "data"):
        data.prepare_data()
        data.setup()
    has_validation = bool(data.val_dataloader()) and trainer.limit_val_batches != 0
    logged = [*task.metric_keys("train"), *(task.metric_keys("val") if has_validation else [])]
    check_monitors(cfg, logged, has_validation)
    _check_last_batch(cfg, data, trainer)

    record.start(run_dir, cfg, HydraConfig.get().overrides.task)
    record.log_hyperparameters(trainer, cfg, [*logged, *task.metric_keys("test")])
    trainer.fit(task, datamodule=data)
    outcome = record.outcome_of_fit(trainer, cfg, run_dir)  # now, for the test replaces metrics and callbacks' states
    if cfg.test:
        best = record.best_checkpoint(trainer) if has_validation else None
        trainer.test(task, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
        outcome["test"] = record.metrics_of(trainer)
    record.finish(run_dir, cfg, trainer, outcome, started)
    return outcome["best"]


def construct(cfg: DictConfig, run_dir: Path) -> tuple[Any, Any, Trainer]:
    """Data module, task and trainer, before any data are read: their constructors know which values make sense.

    The first two are Any for what they have beyond Lightning's classes: data give `sample_shape`, `num_outputs` and
    `batch_size`, a task gives `metric_keys(stage)`.
    """
    for part in ("data", "model", "task", "optimizer", "scheduler", "trainer"):
        if cfg.get(part) is None:
            raise InputError(f"{part}: a run needs one, and this configuration has none")
    _check_bounds(cfg)
    with blamed_on(cfg, "seed"):
        seed_everything(cfg.seed, verbose=False)
    data = _make(cfg, "data")
    with open_dict(cfg.model):  # sizes follow the data, and are recorded
        cfg.model.sample_shape, cfg.model.num_outputs = list(data.sample_shape), data.num_outputs
    model = _make(cfg, "model")
    optimizer, scheduler = _make(cfg, "optimizer"), _make(cfg, "scheduler")
    with blamed_on(cfg, "optimizer"):
        trial = optimizer(list(model.parameters()))
    with blamed_on(cfg, "scheduler"):
        scheduler(trial, num_steps=1000, steps_per_epoch=10)
    task = _make(cfg, "task", model=model, optimizer=optimizer, scheduler=scheduler)
    loggers = [_make(cfg, f"logger.{name}", save_dir=run_dir) for name in cfg.get("logger") or {}]
    callbacks = [_make(cfg, f"callbacks.{name}") for name in cfg.get("callbacks") or {}]
    if not loggers:  # these two refuse a trainer without a logger
        callbacks = [each for each in callbacks if not isinstance(each, LearningRateMonitor | DeviceStatsMonitor)]
    extras = {} if cfg.trainer.profiler else {"profiler": NoProfiler()}
    trainer = _make(cfg, "trainer", callbacks=callbacks, logger=loggers, default_root_dir=run_dir, **extras)
    _check_devices(cfg, trainer, data.batch_size)
    return data, task, trainer


def _make(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Build what a section of the configuration describes, from plain values; a `_partial_` stays a callable."""
    with blamed_on(cfg, key):
        section = OmegaConf.select(cfg, key)
        factory = instantiate(section, _convert_="all", _partial_=True)
        return factory if section.get("_partial_") else factory(**arguments)


def check_monitors(cfg: DictConfig, keys: list[str], has_validation: bool) -> None:
    """Every `monitor` of a callback or the scheduler must be a metric that training logs.

    Raises:
        InputError: one is not.
    """
    sections = ["scheduler", *(f"callbacks.{name}" for name in cfg.get("callbacks") or {})]
    for section in sections:
        monitor = OmegaConf.select(cfg, f"{section}.monitor")
        known = ["train_loss"] if section == "scheduler" and cfg.scheduler.interval == "step" else keys
        if monitor is None or monitor in known:
            continue
        fix = f"it can be one of: {', '.join(known)}"
        if monitor.startswith("val_") and not has_validation:
            fix = "there is no validation set; set data.val_size, or callbacks=no_validation monitor=train_loss"
        raise InputError(f"{section}.monitor={monitor}: nothing logs {monitor} while training\n{fix}")
    every, scheduler = cfg.trainer.check_val_every_n_epoch or 1, cfg.scheduler
    if (
        str(scheduler.get("monitor")).startswith("val_")
        and scheduler.interval == "epoch"
        and scheduler.frequency % every
    ):
        raise InputError(
            f"scheduler.frequency={scheduler.frequency}: {scheduler.monitor} comes every {every} epochs "
            f"(trainer.check_val_every_n_epoch); set scheduler.frequency={every}"
        )


def _check_last_batch(cfg: DictConfig, data: Any, trainer: Trainer) -> None:
    """Processes average their gradients, which is the mean over the batch only where their shares are equal."""
    if trainer.world_size > 1 and isinstance(data, InMemoryData) and data.train is not None:
        num_last = len(data.train.y) % data.batch_size
        if num_last % trainer.world_size:
            raise InputError(
                f"trainer.devices={cfg.trainer.devices}: cannot share the last batch of {num_last} samples evenly; "
                "change data.batch_size or data.val_size"
            )


# What the libraries' constructors accept and then mishandle: key -> its range, whole numbers where that is an int.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "trainer.max_epochs": (-1, 2**31),
    "trainer.log_every_n_steps": (1, 2**31),
    "trainer.check_val_every_n_epoch": (1, 2**31),
    "trainer.accumulate_grad_batches": (1, 2**31),
    "trainer.gradient_clip_val": (0.0, inf),
    "trainer.limit_train_batches": (1e-9, inf),
    "callbacks.early_stopping.patience": (0, 2**31),
    "task.loss.label_smoothing": (0.0, 1.0),
}


def _check_bounds(cfg: DictConfig) -> None:
    for key, (least, most) in RANGES.items():
        value = OmegaConf.select(cfg, key)
        if value is None:
            continue
        is_whole = isinstance(least, int)
        if not isinstance(value, int if is_whole else int | float) or not least <= value <= most:
            most_said = f" and at most {most:g}" if most < 2**31 else ""
            raise InputError(
                f"{key}={value}: must be a {'whole ' if is_whole else ''}number of at least {least:g}{most_said}"
            )


def _check_devices(cfg: DictConfig, trainer: Trainer, batch_size: int) -> None:
    num_cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > num_cores:
        raise InputError(f"trainer.devices={cfg.trainer.devices}: there are {num_cores} CPU cores, and no GPU in use")
    if batch_size % trainer.world_size:
        raise InputError(f"data.batch_size={batch_size}: cannot be divided evenly among {trainer.world_size} processes")
