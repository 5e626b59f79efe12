"""What no constructor knows: values that a library takes and mishandles, and parts that do not go together."""

import logging
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from litmlp.runs.errors import InputError, as_typed

if TYPE_CHECKING:  # values typed on the command line are checked before there is time for torch
    from lightning import Trainer
    from torch import Tensor

log = logging.getLogger(__name__)

PARTS = ("data", "model", "task", "optimizer", "scheduler", "trainer")

# What the libraries' constructors accept and then mishandle: key -> its range, whole numbers where that is an int.
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "trainer.max_epochs": (-1, 2**31),
    "trainer.max_steps": (-1, 2**62),
    "trainer.log_every_n_steps": (1, 2**31),
    "trainer.check_val_every_n_epoch": (1, 2**31),
    "trainer.accumulate_grad_batches": (1, 2**31),
    "trainer.gradient_clip_val": (0.0, inf),
    "trainer.limit_train_batches": (1e-9, inf),
    "trainer.limit_val_batches": (0.0, inf),
    "trainer.limit_test_batches": (0.0, inf),
    "trainer.num_sanity_val_steps": (-1, 2**31),
    "trainer.num_nodes": (1, 2**31),
    "trainer.fast_dev_run": (0, 2**31),
    "callbacks.early_stopping.patience": (0, 2**31),
    "callbacks.best_checkpoint.save_top_k": (-1, 2**31),
    "task.loss.label_smoothing": (0.0, 1.0),
}
CHOICES = {"report": ("true", "false", "each"), "print_config": ("changes", "full", "none")}
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")


def check_values(cfg: DictConfig) -> None:
    """Each part is there, and each value is one that `check_value` lets pass."""
    for part in PARTS:
        if not OmegaConf.is_dict(cfg.get(part)):
            raise InputError(f"{part}: a run needs one, and this configuration has {as_typed(cfg.get(part))}")
    if cfg.get("compile") and OmegaConf.select(cfg, "logger.tensorboard.log_graph"):
        raise InputError(
            f"logger.tensorboard.log_graph=true: no graph can be made of a compiled model (compile={cfg.compile}); "
            "leave out one of the two"
        )
    for key in (*RANGES, *CHOICES):
        check_value(key, OmegaConf.select(cfg, key))
    if not OmegaConf.is_interpolation(cfg, "name"):  # of the default, which only a running job resolves
        check_value("name", cfg.get("name"))


def check_value(key: str, value: Any) -> None:
    """Refuse what is outside its key's range; null, and keys without range, are for the constructors to judge.

    Raises:
        InputError: with the range.
    """
    if key == "name" and (not isinstance(value, str) or not value or leads_outside(value)):
        raise InputError(f"name={as_typed(value)}: must name a folder under runs/ and sweeps/")
    if key in LENGTHS and value == 0:
        raise InputError(f"{key}=0: trains nothing; must be at least 1, or -1 for no end")
    if key in CHOICES and value is not None and as_typed(value) not in CHOICES[key]:
        raise InputError(f"{key}={as_typed(value)}: must be {', '.join(CHOICES[key][:-1])} or {CHOICES[key][-1]}")
    if key not in RANGES or value is None:
        return
    least, most = RANGES[key]
    is_whole = isinstance(least, int)
    if not isinstance(value, int if is_whole else int | float) or not least <= value <= most:
        most_said = f" and at most {most:g}" if most < 2**31 else ""
        raise InputError(
            f"{key}={as_typed(value)}: must be a {'whole ' if is_whole else ''}number of at least {least:g}{most_said}"
        )


def leads_outside(path: str) -> bool:
    """Whether a path that belongs into some folder leads out of it."""
    return PurePath(path).is_absolute() or ".." in PurePath(path).parts or path.startswith("~") or "://" in path


def check_task(task: Any, data: Any) -> None:
    """The loss and the metrics take such outputs and these targets: tried on some samples and random outputs."""
    import torch

    from litmlp.data.in_memory import InMemoryData
    from litmlp.tasks.supervised import SupervisedTask

    if not isinstance(data, InMemoryData) or data.train is None or not isinstance(task, SupervisedTask):
        return  # others would have to be read, or run, for this
    size = 99 if data.num_outputs == 100 else 100  # so that sizes that should differ do not match by chance
    y = data.train.y[torch.arange(size) % len(data.train.y)]
    generator = torch.Generator().manual_seed(0)  # the run's own random numbers are left alone
    outputs = torch.rand(len(y), data.num_outputs, generator=generator).requires_grad_()
    part = f"task.loss: {type(task.loss).__name__}"
    try:
        _check_targets(task.loss, data.train.y)
        loss = task.loss(outputs, y)
        loss.backward()
        _look_at_mean(task.loss, outputs.detach(), y)
        for name, metric in task.val_scores.items(keep_base=True):
            part = f"task.metrics.{name}: {type(metric).__name__}"
            for each in metric.modules():  # one may wrap others
                _check_targets(each, data.train.y)
        part, scores = "task.metrics", task.val_scores.clone()
        scores.update(preds=outputs, target=y, value=loss, weight=len(y))
        for name, value in scores.compute().items():
            part = f"task.metrics.{name.removeprefix('val_')}"
            value.item()
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        targets = "estimates" if y.is_floating_point() else "classes"
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{part} does not suit this data, whose targets are {targets}: {reason}") from error


def _check_targets(part: Any, y: "Tensor") -> None:
    """Targets that a loss or a metric takes and makes nonsense of are refused."""
    from torch import nn

    if not y.is_floating_point():
        return  # their shape tells
    if any(base.__name__.startswith("Multiclass") for base in type(part).__mro__):  # it takes them for more samples
        raise ValueError("it takes class numbers, int64 of shape (N,); argmax(1) makes them of one-hot targets")
    if isinstance(part, nn.CrossEntropyLoss):
        if not 0 <= y.min() <= y.max() <= 1 or not (y.sum(1) - 1).abs().max() < 1e-3:
            raise ValueError("it takes class numbers, or their probabilities, which sum to 1 for each sample")
    elif isinstance(part, nn.BCEWithLogitsLoss | nn.MultiLabelSoftMarginLoss) and not 0 <= y.min() <= y.max() <= 1:
        raise ValueError(f"it takes probabilities, got targets from {y.min():g} to {y.max():g}")


def _look_at_mean(loss: Any, outputs: "Tensor", y: "Tensor") -> None:
    """Say so where the losses of batches do not make up that of the set."""
    from litmlp.tasks.supervised import num_averaged

    whole, total, size = loss(outputs, y), 0.0, 0.0
    for part in (slice(37), slice(37, None)):
        if part_size := float(num_averaged(loss, y[part])):
            total, size = total + part_size * float(loss(outputs[part], y[part])), size + part_size
    if size and abs(total / size - whole) > 1e-5 * abs(whole):
        log.warning(
            "task.loss: %s of some samples is not the mean of its parts', so that train_loss, val_loss and test_loss "
            "depend on data.batch_size and data.eval_batch_size",
            type(loss).__name__,
        )


def check_lengths(cfg: DictConfig, data: Any) -> None:
    """A fraction of the batches is at least one, where they can be counted."""
    for stage in ("train", "val", "test"):
        key, loader = f"limit_{stage}_batches", getattr(data, f"{stage}_dataloader")()
        limit = cfg.trainer.get(key)
        if isinstance(limit, float) and hasattr(loader, "__len__") and len(loader) and 0 < limit * len(loader) < 1:
            raise InputError(
                f"trainer.{key}={limit:g}: is none of the {len(loader)} batches; a count is a whole number"
            )


def check_devices(cfg: DictConfig, trainer: "Trainer", batch_size: int) -> None:
    """The options go together, and a batch can be shared among the processes."""
    if cfg.trainer.gradient_clip_val and "mixed" in str(cfg.trainer.precision) and cfg.optimizer.get("fused"):
        raise InputError(
            f"optimizer.fused=true: a fused optimizer cannot clip gradients in precision {cfg.trainer.precision}; "
            "set optimizer.fused=false"
        )
    if batch_size % trainer.world_size:
        raise InputError(f"data.batch_size={batch_size}: cannot be divided evenly among {trainer.world_size} processes")


def check_monitors(cfg: DictConfig, keys: list[str], has_validation: bool) -> None:
    """Every `monitor` of a callback or of the scheduler is among the keys that training logs, when it is asked for."""
    sections = ["scheduler", *(f"callbacks.{name}" for name in cfg.get("callbacks") or {})]
    for section in sections:
        monitor = OmegaConf.select(cfg, f"{section}.monitor")
        known = ["train_loss"] if section == "scheduler" and cfg.scheduler.interval == "step" else keys
        if monitor is None or monitor in known:
            continue
        fix = f"it can be one of: {', '.join(known)}"
        if monitor.startswith("val_") and not has_validation:
            why = "there is no validation set; set data.val_size"
            if cfg.trainer.get("limit_val_batches") == 0:
                why = "trainer.limit_val_batches=0 leaves out validation; set it"
            fix = f"{why}, or callbacks=no_validation monitor=train_loss"
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
