"""What no constructor knows: values that a library takes and mishandles, and parts that do not go together."""

from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from litmlp.runs.errors import InputError, as_typed

if TYPE_CHECKING:  # values typed on the command line are checked before there is time for torch
    from lightning import Trainer

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
    y = data.train.y[:100]
    generator = torch.Generator().manual_seed(0)  # the run's own random numbers are left alone
    outputs = torch.rand(len(y), data.num_outputs, generator=generator).requires_grad_()
    part = f"task.loss: {type(task.loss).__name__}"
    try:
        loss = task.loss(outputs, y)
        loss.backward()
        part, scores = "task.metrics", task.val_scores.clone()
        scores.update(preds=outputs, target=y, value=loss, weight=len(y))
        for name, value in scores.compute().items():
            part = f"task.metrics.{name.removeprefix('val_')}"
            value.item()
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        targets = "estimates" if y.is_floating_point() else "classes"
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{part} does not suit this data, whose targets are {targets}: {reason}") from error


def check_loaders(cfg: DictConfig, trainer: "Trainer", data: Any) -> None:
    """Several processes can each be given a share of what a loader gives, unless the loaders themselves see to it."""
    if trainer.world_size == 1 or not cfg.trainer.get("use_distributed_sampler", True):
        return
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
    from torch.utils.data import DataLoader, IterableDataset

    from litmlp.data.in_memory import Batches

    for stage in ("train", "val"):  # what all have of the test set gives the same metrics
        for loader in CombinedLoader(getattr(data, f"{stage}_dataloader")(), "sequential").flattened:
            if isinstance(loader, Batches):  # each process's own share already
                continue
            of = f"{type(data).__name__}.{stage}_dataloader, a {type(loader).__name__}"
            if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
                raise InputError(
                    f"data: {of} over an iterable, would give all batches to each of {trainer.world_size} processes\n"
                    "give each its share, by self.trainer.global_rank, and set trainer.use_distributed_sampler=false"
                )
            share = data.batch_size // trainer.world_size  # without a rest, as `check_devices` has seen
            if stage == "train" and loader.batch_size not in (None, share):
                raise InputError(
                    f"data.batch_size={data.batch_size}: is of all {trainer.world_size} processes together, but {of}, "
                    f"has batches of {loader.batch_size} for each; let it take batch_size // self.trainer.world_size"
                )


def check_lengths(cfg: DictConfig, data: Any) -> None:
    """A fraction of the batches is at least one, where they can be counted."""
    for stage in ("train", "val", "test"):
        key = f"limit_{stage}_batches"
        limit = cfg.trainer.get(key)
        if not isinstance(limit, float) or not 0 < limit < 1:
            continue
        loader = getattr(data, f"{stage}_dataloader")()
        if hasattr(loader, "__len__") and len(loader) and limit * len(loader) < 1:
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
