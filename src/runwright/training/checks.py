"""Checks, before the first step, that the parts of a run fit together."""

from math import inf
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, IterableDataset

from runwright.config.errors import InputError
from runwright.contracts import Data, SharingLoader, Task
from runwright.loop.checkpoints import fields

WORDS = {"min": "lower", "max": "higher"}


def loader_of(data: Any, stage: str) -> Any:
    """The data module's loader or loaders for a stage; an empty list if it has none.

    Raises:
        InputError: it returned None, which Lightning does not take.
    """
    name = f"{stage}_dataloader"
    loader = getattr(data, name)() if is_overridden(name, data, LightningDataModule) else []
    if loader is None:
        raise InputError(f"data: {type(data).__name__}.{name}() gives None; an empty list stands for no batches")
    return loader


def num_batches(loader: Any) -> float:
    """Number of batches of a loader or of several; infinite if unknown before they are read."""
    try:
        return len(loader)
    except (
        TypeError,
        RuntimeError,
        NotImplementedError,
    ):  # an iterable data set, or a CombinedLoader before its iter()
        return inf


def check_loaders(cfg: DictConfig, trainer: Trainer, data: Data) -> None:
    """Check that Lightning can share each loader's batches among the processes, or that the loader does so itself."""
    if trainer.world_size == 1 or not cfg.trainer.get("use_distributed_sampler", True):
        return
    for stage in ("train", "val"):  # every process may test on the whole test set: the metrics stay the same
        loaders = loader_of(data, stage)
        for loader in CombinedLoader(loaders, "sequential").flattened if num_batches(loaders) else ():
            if isinstance(loader, SharingLoader):  # it gives each process its own share already
                continue
            name = f"{type(data).__name__}.{stage}_dataloader, a {type(loader).__name__}"
            if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
                raise InputError(
                    f"data: {name} over an iterable, would give all batches to each of {trainer.world_size} processes\n"
                    "give each its share, by self.trainer.global_rank, and set trainer.use_distributed_sampler=false"
                )
            share = data.batch_size // trainer.world_size  # no remainder: see `check_devices`
            if stage == "train" and loader.batch_size not in (None, share):
                raise InputError(
                    f"data.batch_size={data.batch_size}: is the total of {trainer.world_size} processes, but {name}, "
                    f"has batches of {loader.batch_size} in each; give it batch_size // self.trainer.world_size"
                )


def check_lengths(cfg: DictConfig, data: Data) -> None:
    """Check that there are loaders for training and test, and that `limit_*_batches` leaves at least one batch."""
    for stage, is_needed in (("train", True), ("val", False), ("test", cfg.test)):
        key = f"limit_{stage}_batches"
        limit, name = cfg.trainer.get(key), f"{stage}_dataloader"
        if is_needed and not is_overridden(name, data, LightningDataModule):
            fix = "; set test=false, or define it" if stage == "test" else ""
            raise InputError(f"data: {type(data).__name__} has no {name}{fix}")
        if not isinstance(limit, float) or not 0 < limit < 1:
            continue
        length = num_batches(loader_of(data, stage))
        if length == inf:
            raise InputError(f"trainer.{key}={limit:g}: the number of batches is unknown; give a whole number")
        if length and limit * length < 1:
            raise InputError(
                f"trainer.{key}={limit:g}: of {length} batches leaves none; for a count, give a whole number"
            )


def check_devices(cfg: DictConfig, trainer: Trainer, batch_size: int) -> None:
    """Check that precision, clipping and optimizer are compatible, and that the processes can share a batch."""
    clips, precision = cfg.trainer.get("gradient_clip_val"), cfg.trainer.get("precision")
    if clips and "mixed" in str(precision) and cfg.optimizer.get("fused"):
        raise InputError(
            f"optimizer.fused=true: a fused optimizer cannot clip gradients in precision {precision}; "
            "set optimizer.fused=false"
        )
    if batch_size % trainer.world_size:
        raise InputError(f"data.batch_size={batch_size}: cannot be divided evenly among {trainer.world_size} processes")


def settle_modes(cfg: DictConfig, task: Task) -> None:
    """Set each `mode` that is null to the direction in which the `monitor` next to it improves.

    Raises:
        InputError: a mode is the wrong direction; or it is null, and the task does not know the direction.
    """
    logged = {*task.metric_keys("train"), *task.metric_keys("val")}
    better = {monitor: task.mode_of(monitor) for monitor in logged}
    sections = ["scheduler.", *(f"callbacks.{name}." for name in cfg.get("callbacks") or {})]
    pairs = {}
    for section in ["", *sections]:
        if "mode" in (OmegaConf.select(cfg, section[:-1]) if section else cfg):
            pairs[section] = [OmegaConf.select(cfg, f"{section}{key}") for key in ("monitor", "mode")]
    for section, (monitor, mode) in pairs.items():
        right = better.get(monitor)
        if mode is not None and right is not None and mode != right:
            fix = f"set {section}mode={right}{'' if section else ', or leave it out'}"
            raise InputError(f"{section}mode={mode}: {WORDS[right]} {monitor} is better; {fix}")
        if mode is None and right is None and monitor in logged:
            fix = f"set {section}mode=min or {section}mode=max"
            raise InputError(f"{section}monitor={monitor}: it is unknown whether lower or higher is better; {fix}")
    for section, (monitor, mode) in pairs.items():
        if mode is None:
            # check_monitors refuses an unknown monitor later, once the data are set up and all logged keys are known.
            OmegaConf.update(cfg, f"{section}mode", better.get(monitor) or "min")


def check_monitors(cfg: DictConfig, keys: list[str], has_validation: bool) -> None:
    """Check that every `monitor` of a callback or of the scheduler is logged by the time it is read.

    The same for every metric in the file name of a checkpoint.
    """
    sections = ["scheduler", *(f"callbacks.{name}" for name in cfg.get("callbacks") or {})]
    for section in sections:
        monitor = OmegaConf.select(cfg, f"{section}.monitor")
        is_per_step = section == "scheduler" and cfg.scheduler.get("interval") == "step"
        known = ["train_loss"] if is_per_step else keys
        if monitor is None or monitor in known:
            continue
        fix = f"it can be one of: {', '.join(known)}"
        if monitor.startswith("val_") and not has_validation:
            why = "there is no validation set; set data.val_size"
            if cfg.trainer.get("limit_val_batches") == 0:
                why = "trainer.limit_val_batches=0 turns validation off; change it"
            fix = f"{why}, or callbacks=no_validation monitor=train_loss"
        raise InputError(f"{section}.monitor={monitor}: nothing logs {monitor} during training\n{fix}")
    for section in sections[1:]:
        filename = OmegaConf.select(cfg, f"{section}.filename")
        if unknown := [name for name in fields(str(filename)) if name not in keys]:
            raise InputError(f"{section}.filename={filename}: nothing logs {unknown[0]}; there are: {', '.join(keys)}")
    every, scheduler = cfg.trainer.get("check_val_every_n_epoch") or 1, cfg.scheduler
    is_per_epoch, frequency = scheduler.get("interval", "epoch") == "epoch", scheduler.get("frequency", 1)
    if str(scheduler.get("monitor")).startswith("val_") and is_per_epoch and frequency % every:
        raise InputError(
            f"scheduler.frequency={frequency}: {scheduler.monitor} comes every {every} epochs "
            f"(trainer.check_val_every_n_epoch); set scheduler.frequency={every}"
        )
