"""A run, top to bottom."""

import logging
import time
import warnings
from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor
from omegaconf import DictConfig, OmegaConf, open_dict

from litmlp.checkpoint_io import DurableCheckpoints
from litmlp.profiler import NoProfiler
from litmlp.runs import record, resume, tensorboard
from litmlp.runs.checks import (
    check_devices,
    check_lengths,
    check_loaders,
    check_monitors,
    check_task,
    check_values,
)
from litmlp.runs.compare import read_overrides, read_provenance
from litmlp.runs.defaults import differences_from_defaults
from litmlp.runs.errors import blamed_on
from litmlp.runs.terminal import say_config
from litmlp.runs.weights import start_from
from litmlp.signals import heeded
from litmlp.training_epoch import TrainingEpoch

log = logging.getLogger(__name__)

for message in (
    ".*LeafSpec.*",  # between Lightning 2.6.6 and torch 2.15, not the user's to mend
    ".*Total length of `list`.*",  # no validation loaders are an empty list of them
    ".*exists and is not empty.*",  # the CSV logger finds config.yaml there, a resumed run its checkpoints
    ".*sync_dist=True.*",  # torchmetrics have reduced what is logged
    ".*smaller than the logging interval.*",  # a short epoch is logged at its first batch
):
    warnings.filterwarnings("ignore", message=message)
logging.getLogger("lightning").handlers.clear()  # Hydra's handlers print what it passes on
for part in ("pytorch", "fabric"):
    logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)  # their INFO is about devices and products
for table in ("profilers", "callbacks.model_summary"):  # but for these, which were asked for
    logging.getLogger(f"lightning.pytorch.{table}").setLevel(logging.INFO)


@heeded()
def train(
    cfg: DictConfig, run_dir: Path, overrides: Sequence[str] = (), callbacks: Sequence[Callback] = ()
) -> float | None:
    """Train and test what the configuration says, into the directory; go on with the run there if it says so.

    Args:
        cfg: as composed of conf/.
        run_dir: of this run alone.
        overrides: what was typed in place of the defaults, to be recorded.
        callbacks: beside those of the configuration, and no part of what is recorded.

    Returns:
        The monitored metric's best value, for a sweeper; None if nothing logged it.

    Raises:
        InputError: bad values, found before the first step.
        Interrupted: a signal came.
    """
    started = time.time()
    before = resume.recorded(run_dir) if cfg.resume else None
    data, task, trainer = construct(cfg, run_dir, callbacks)
    changed = {} if before is None else resume.changes(run_dir, before, cfg)
    if before is not None and (metrics := resume.finished(run_dir, changed)):
        value = "-" if metrics["best"] is None else f"{metrics['best']:.4g}"
        log.info("%s is finished: %s; best %s %s", run_dir, metrics["stopped"], metrics["monitor"], value)
        return metrics["best"]
    trainer.strategy.setup_environment()  # joins the other processes, where there are any
    data.trainer = trainer  # as Lightning sets it later: loaders may ask it for the number of processes
    with blamed_on(cfg, "data"):
        if trainer.local_rank == 0:
            data.prepare_data()
        trainer.strategy.barrier()
        data.setup("fit")
    has_validation = bool(data.val_dataloader()) and trainer.limit_val_batches != 0
    logged = [*task.metric_keys("train"), *(task.metric_keys("val") if has_validation else [])]
    check_monitors(cfg, logged, has_validation)
    check_loaders(cfg, trainer, data)
    check_lengths(cfg, data)
    check_task(task, data)

    if cfg.get("init_from") and before is None:
        start_from(task.model, Path(cfg.init_from))
    typed_before, starts = ([], []) if before is None else (read_overrides(run_dir), read_provenance(run_dir))
    differences = differences_from_defaults(cfg, [*typed_before, *overrides])
    if before is None:
        record.start(run_dir, cfg, overrides)
        if trainer.is_global_zero:
            say_config(cfg, differences)
    with record.sole_writer(run_dir):
        checkpoint = None if before is None else resume.start(run_dir, cfg, overrides, changed, trainer)
        git = record.provenance(run_dir, started, starts)
        record.log_hyperparameters(trainer, cfg, [*logged, *task.metric_keys("test")])
        if checkpoint is None:
            tensorboard.introduce(trainer, logged, overrides, differences, git)
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        outcome = record.outcome_of_fit(trainer, cfg, run_dir)  # now, for the test replaces metrics, callbacks' states
        if cfg.test:
            best = record.best_checkpoint(trainer) if has_validation else None
            trainer.test(task, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
            outcome["test"] = record.metrics_of(trainer)
        outcome["differences"] = differences
        record.finish(run_dir, cfg, trainer, outcome, started, resumed=checkpoint is not None)
    return outcome["best"]


def construct(cfg: DictConfig, run_dir: Path, others: Sequence[Callback] = ()) -> tuple[Any, Any, Trainer]:
    """Data module, task and trainer, before any data are read: their constructors know which values make sense.

    The first two are Any for what they have beyond Lightning's classes: data give `sample_shape`, `num_outputs` and
    `batch_size`, a task gives `metric_keys(stage)`.
    """
    check_values(cfg)
    seed_everything(cfg.seed, verbose=False)
    data = make(cfg, "data")
    with blamed_on(cfg, "data"), open_dict(cfg.model):  # sizes follow the data, and are recorded
        cfg.model.sample_shape, cfg.model.num_outputs = list(data.sample_shape), data.num_outputs
    model = make(cfg, "model")
    if cfg.get("compile"):
        with blamed_on(cfg, "compile"):
            model.compile(mode=cfg.compile)
    optimizer, scheduler = make(cfg, "optimizer"), make(cfg, "scheduler")
    with blamed_on(cfg, "optimizer"):
        trial = optimizer(list(model.parameters()))
    with blamed_on(cfg, "scheduler"):
        is_endless = cfg.trainer.max_epochs == -1 and cfg.trainer.max_steps == -1
        scheduler(trial, num_steps=inf if is_endless else 1000, steps_per_epoch=10)
    task = make(cfg, "task", model=model, optimizer=optimizer, scheduler=scheduler)
    task.example_input_array = torch.zeros(1, *data.sample_shape)  # of which TensorBoard's graph is made
    loggers = [make(cfg, f"logger.{name}", save_dir=run_dir) for name in cfg.get("logger") or {}]
    callbacks = []
    for name in cfg.get("callbacks") or {}:
        callbacks.append(make(cfg, f"callbacks.{name}"))
        if hasattr(callbacks[-1], "check"):  # ours may look at the task before data are read
            with blamed_on(cfg, f"callbacks.{name}"):
                callbacks[-1].check(task)
    callbacks += others
    if not loggers:  # these two refuse a trainer without a logger
        callbacks = [each for each in callbacks if not isinstance(each, LearningRateMonitor | DeviceStatsMonitor)]
    extras: dict[str, Any] = {"plugins": [DurableCheckpoints()]}
    if not cfg.trainer.profiler:
        extras["profiler"] = NoProfiler()
    trainer = make(cfg, "trainer", callbacks=callbacks, logger=loggers, default_root_dir=run_dir, **extras)
    TrainingEpoch.install(trainer)
    check_devices(cfg, trainer, data.batch_size)
    return data, task, trainer


def make(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Build what a section of the configuration describes, from plain values; a `_partial_` stays a callable."""
    with blamed_on(cfg, key):
        section = OmegaConf.select(cfg, key)
        factory = instantiate(section, _convert_="all", _partial_=True)
        return factory if section.get("_partial_") else factory(**arguments)
