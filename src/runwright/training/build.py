"""Builds the parts of a run from the configuration, before any data are read."""

from collections.abc import Sequence
from functools import partial
from inspect import signature
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.optim.swa_utils import AveragedModel

from runwright.config.blame import error_context
from runwright.config.errors import InputError
from runwright.config.values import check_values
from runwright.contracts import CheckedCallback, Data, Task
from runwright.loop.checkpoint_io import DurableCheckpoints
from runwright.loop.checkpoints import check_filename
from runwright.loop.step import NoProfiler, TrainingEpoch
from runwright.training.checks import check_devices, settle_modes

if TYPE_CHECKING:
    from runwright.contracts import LightningData, LightningTask


def construct(
    cfg: DictConfig, run_dir: Path, typed: Sequence[str] = (), others: Sequence[Callback] = ()
) -> tuple["LightningData", "LightningTask", Trainer]:
    """Build data module, task and trainer, before any data are read: their constructors check their values.

    Args:
        cfg: the configuration; the sizes of the model's input and output are added.
        run_dir: where loggers and checkpoints write.
        typed: the user's overrides, for error messages.
        others: callbacks in addition to the configuration's.

    Raises:
        InputError: a bad value, with its key.
    """
    check_values(cfg)
    seed_everything(cfg.seed, verbose=False)
    build = partial(make, cfg, typed=typed)
    data: LightningData = build("data")
    check_contract("data", data, Data)
    with (
        error_context(cfg, "data", typed),
        open_dict(cfg.model),
    ):  # the model's sizes follow from the data, and are recorded
        cfg.model.sample_shape, cfg.model.num_outputs = list(data.sample_shape), data.num_outputs
    model = build("model")
    if cfg.get("compile"):
        with error_context(cfg, "compile", typed):
            model.compile(mode=cfg.compile)
    optimizer = build("optimizer")
    with error_context(cfg, "optimizer", typed):
        trial = optimizer(list(model.parameters()))
    task = _task(cfg, model, optimizer, typed)
    with error_context(cfg, "scheduler", typed):
        is_endless = cfg.trainer.get("max_epochs") == -1 and cfg.trainer.get("max_steps", -1) == -1
        make(cfg, "scheduler", typed)(trial, num_steps=inf if is_endless else 1000, steps_per_epoch=10)
    task.example_input_array = torch.zeros(1, *data.sample_shape)  # for TensorBoard's graph
    loggers = [build(f"logger.{name}", save_dir=run_dir) for name in cfg.get("logger") or {}]
    for name, logger in zip(cfg.get("logger") or {}, loggers, strict=True):
        _check_options(cfg, f"logger.{name}", logger, typed)
    callbacks = []
    for name in cfg.get("callbacks") or {}:
        callback = build(f"callbacks.{name}")
        _check_options(cfg, f"callbacks.{name}", callback, typed)
        if isinstance(callback, CheckedCallback):
            with error_context(cfg, f"callbacks.{name}", typed):
                callback.check(task)
        if isinstance(callback, ModelCheckpoint):
            with error_context(cfg, f"callbacks.{name}", typed):
                check_filename(callback.filename)
        callbacks.append(callback)
    callbacks += others
    if not loggers:  # these two refuse a trainer without a logger
        callbacks = [each for each in callbacks if not isinstance(each, LearningRateMonitor | DeviceStatsMonitor)]
    extras: dict[str, Any] = {"plugins": [DurableCheckpoints()]}
    is_direct = cfg.get("step_loop") == "direct"
    if is_direct and not cfg.trainer.get("profiler"):
        extras["profiler"] = NoProfiler()
    trainer = build("trainer", callbacks=callbacks, logger=loggers, default_root_dir=run_dir, **extras)
    if is_direct:
        TrainingEpoch.install(trainer)
    check_devices(cfg, trainer, data.batch_size)
    return data, task, trainer


def _task(cfg: DictConfig, model: Any, optimizer: Any, typed: Sequence[str]) -> Any:
    """Build the task, and fill in each `mode` in `cfg` that is null, because only the task knows its metrics."""

    def build(cfg: DictConfig) -> Any:
        scheduler = make(cfg, "scheduler", typed)
        task = make(cfg, "task", typed, model=model, optimizer=optimizer, scheduler=scheduler)
        check_contract("task", task, Task)
        return task

    guess = cfg.copy()
    if guess.scheduler.get("mode", "min") is None:
        guess.scheduler.mode = "min"
    task = build(guess)
    settle_modes(cfg, task)
    return task if cfg.scheduler == guess.scheduler else build(cfg)


def make(cfg: DictConfig, key: str, typed: Sequence[str] = (), **arguments: Any) -> Any:
    """Build the object that a section of the configuration describes; with `_partial_` it stays a callable."""
    with error_context(cfg, key, typed):
        section = OmegaConf.select(cfg, key)
        factory = instantiate(section, _convert_="all", _partial_=True)
        return factory if section.get("_partial_") else factory(**arguments)


def _check_options(cfg: DictConfig, key: str, part: object, typed: Sequence[str]) -> None:
    """Refuse unknown options of Lightning classes that take any and pass them on once training starts."""
    receivers: dict[type, Any] = {}  # class that passes on its `**kwargs` -> class that receives them
    if isinstance(part, TensorBoardLogger):
        from torch.utils.tensorboard import SummaryWriter  # imported here, because other runs need no TensorBoard

        receivers[TensorBoardLogger] = SummaryWriter
    if isinstance(part, WeightAveraging):
        receivers[WeightAveraging] = AveragedModel
    for kind, receiver in receivers.items():
        known = {*signature(type(part)).parameters, *signature(kind).parameters, *signature(receiver).parameters}
        with error_context(cfg, key, typed):
            for name in OmegaConf.select(cfg, key):
                if not name.startswith("_") and name not in known:
                    raise ValueError(f"{name}: neither {type(part).__name__} nor {receiver.__name__} takes it")


def check_contract(key: str, part: object, contract: type) -> None:
    """Raise an InputError that names the members of `contracts.Data` or `contracts.Task` that a part lacks."""
    if not isinstance(part, contract):
        members = {*vars(contract), *getattr(contract, "__annotations__", {})}
        missing = sorted(name for name in members if not name.startswith("_") and not hasattr(part, name))
        own = type(part)
        raise InputError(
            f"{key}: {own.__module__}.{own.__qualname__} lacks {', '.join(missing)}; "
            f"runwright.contracts.{contract.__name__} says what they are, and is a base class for most of them"
        )
