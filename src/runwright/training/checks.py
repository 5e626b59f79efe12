"""Parts that do not go together, found before the first step."""

from collections.abc import Sized

from lightning import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, IterableDataset

from runwright.config.errors import InputError
from runwright.contracts import Data, SharingLoader


def check_loaders(cfg: DictConfig, trainer: Trainer, data: Data) -> None:
    """Several processes can each be given a share of what a loader gives, unless the loaders themselves see to it."""
    if trainer.world_size == 1 or not cfg.trainer.get("use_distributed_sampler", True):
        return
    for stage in ("train", "val"):  # what all have of the test set gives the same metrics
        for loader in CombinedLoader(getattr(data, f"{stage}_dataloader")(), "sequential").flattened:
            if isinstance(loader, SharingLoader):  # each process's own share already
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


def check_lengths(cfg: DictConfig, data: Data) -> None:
    """A fraction of the batches is at least one, where they can be counted."""
    for stage in ("train", "val", "test"):
        key = f"limit_{stage}_batches"
        limit = cfg.trainer.get(key)
        if not isinstance(limit, float) or not 0 < limit < 1:
            continue
        loader = getattr(data, f"{stage}_dataloader")()
        if isinstance(loader, Sized) and len(loader) and limit * len(loader) < 1:
            raise InputError(
                f"trainer.{key}={limit:g}: is none of the {len(loader)} batches; a count is a whole number"
            )


def check_devices(cfg: DictConfig, trainer: Trainer, batch_size: int) -> None:
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
