"""The best weights by a metric, and the state from which a run goes on."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loops import _Loop
from torch import Tensor, distributed

from litmlp import signals
from litmlp.checkpoint_io import DurableCheckpoints

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, but a NaN or an infinity is never among the best, and the directory is no logger's to choose."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = str(_folder(trainer))
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, *args: Any) -> None:
        if self._every_n_train_steps or self._train_time_interval is not None:  # else it only reads the clock, 16 us
            super().on_train_batch_end(*args)

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)


class LastCheckpoint(Checkpoint):
    """Saves `checkpoints/last.ckpt`, from which the run goes on to the same bits; the one before is `previous.ckpt`.

    It is saved between two epochs, at the end, every `every_n_steps`, and when a signal asks the run to end, which
    raises `signals.Interrupted`. Beside what Lightning saves it holds the random generators' states of each process,
    what the task and the data loader know of the epoch under way, and the metrics so far.

    Several processes look for signals together, every `trainer.log_every_n_steps` batches.

    Args:
        every_n_steps: save within epochs too, every that many optimizer steps.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise ValueError(f"every_n_steps must be null or a whole number of at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._to_save: dict[str, Any] = {}
        self._loaded: dict[str, Any] = {}
        self._saved = (0, False)  # at which step, and whether within an epoch
        self._signal = 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._to_save:  # not where another callback saves
            checkpoint["resume"] = self._to_save

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not trainer.training:
            return
        self._loaded = checkpoint["resume"]
        old, new = self._loaded["folder"], str(_folder(trainer))
        for state in checkpoint["callbacks"].values():
            if "best_k_models" in state:  # a ModelCheckpoint, which would drop them where the run was moved
                state["best_k_models"] = {_moved(path, old, new): x for path, x in state["best_k_models"].items()}
                for key in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = _moved(state[key], old, new)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(io := trainer.strategy.checkpoint_io, DurableCheckpoints):
            io.keeps_replaced = True  # until this one no longer knows them
            io.replaced |= {_folder(trainer) / name for name in self._loaded.get("replaced", [])}
        trainer.callback_metrics.update(self._loaded.get("metrics", {}))
        if any(getattr(each, "stopping_reason_message", None) for each in trainer.early_stopping_callbacks):
            trainer.should_stop = True  # this run had been stopped early when it was saved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signals.listen()  # again: Lightning has put a handler of its own in the way
        signals.deferred = True
        rank, step, loaded, self._loaded = trainer.global_rank, trainer.global_step, self._loaded, {}
        states = loaded.get("random", [])
        if len(states) == trainer.world_size:
            _set_random_state(states[rank], pl_module.device)
        elif rank or states:  # else every process would drop the same units
            _seed(int(np.random.SeedSequence((torch.initial_seed(), step, rank)).generate_state(1)[0]))
        self._saved = (step, loaded.get("is_within_epoch", False))
        loop, epochs = trainer.fit_loop, trainer.fit_loop.epoch_progress.total
        if loaded:  # else Lightning would leave out a plateau per epoch at the end of this one
            loop._restarting = False
        if loaded.get("is_within_epoch"):
            if loaded["loader"]:
                trainer.train_dataloader.load_state_dict(loaded["loader"])  # type: ignore[union-attr]
            if hasattr(pl_module, "resume_epoch"):
                pl_module.resume_epoch(  # type: ignore[operator]
                    loaded["task"][rank :: trainer.world_size]
                )
        elif loaded:  # the next epoch is to be like any other
            _Loop.restarting.__set__(loop, False)  # the fit loop's own would not, where the run is counted in steps
            epochs.ready = epochs.completed
            loop.reset_restart_stage()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size == 1:
            self._signal = signals.pending
        elif batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # undeclared
            self._agree_on_signal(trainer, pl_module)
        is_due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if (is_due or self._signal) and _can_resume_after(trainer, batch_idx):
            self._save(trainer, pl_module, is_within_epoch=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree_on_signal(trainer, pl_module)
        self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signals.deferred = False
        self.on_train_epoch_start(trainer, pl_module)

    def _agree_on_signal(self, trainer: Trainer, pl_module: LightningModule) -> None:
        highest = trainer.strategy.reduce(torch.tensor(signals.pending, device=pl_module.device), reduce_op="max")
        self._signal = int(highest)

    def _save(self, trainer: Trainer, pl_module: LightningModule, is_within_epoch: bool = False) -> None:
        if not getattr(trainer, "fast_dev_run", False) and self._saved != (trainer.global_step, is_within_epoch):
            for logger in trainer.loggers:
                logger.save()  # what it holds back would be a gap in the curves of the resumed run
            loader, epoch = trainer.train_dataloader, getattr(pl_module, "state_of_epoch", dict)
            folder, io = _folder(trainer), trainer.strategy.checkpoint_io
            self._to_save = {
                "folder": str(folder),
                "replaced": [path.name for path in io.replaced] if isinstance(io, DurableCheckpoints) else [],
                "is_within_epoch": is_within_epoch,
                "random": _from_all_processes(_random_state(pl_module.device)),
                "task": _from_all_processes(epoch() if is_within_epoch else {}),
                "loader": loader.state_dict() if hasattr(loader, "state_dict") else {},  # type: ignore[union-attr]
                "metrics": dict(trainer.callback_metrics),
            }
            trainer.save_checkpoint(folder / LAST, storage_options={"previous": folder / PREVIOUS})
            self._to_save, self._saved = {}, (trainer.global_step, is_within_epoch)
            if isinstance(io, DurableCheckpoints):
                io.remove_replaced()
        if self._signal:
            raise signals.Interrupted(self._signal)


def _can_resume_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the next thing is a batch whose gradients start from nothing, not a validation or the epoch's end."""
    num_batches = batch_idx + 1
    accumulates = num_batches % trainer.accumulate_grad_batches != 0
    return not (accumulates or num_batches % (trainer.val_check_batch or 1) == 0 or trainer.fit_loop.epoch_loop.done)


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def _moved(path: str, old: str, new: str) -> str:
    return new + path.removeprefix(old) if path.startswith(old) else path


def _from_all_processes(state: dict[str, Any]) -> list[dict[str, Any]]:
    if not (distributed.is_available() and distributed.is_initialized()):
        return [state]
    states: list[dict[str, Any]] = [{}] * distributed.get_world_size()
    distributed.all_gather_object(states, state)
    return states


def _random_state(device: torch.device) -> dict[str, Any]:
    state = np.random.get_state(legacy=False)
    state["state"]["key"] = state["state"]["key"].tolist()
    states = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": state}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
