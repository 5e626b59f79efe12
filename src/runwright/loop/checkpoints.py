"""The best weights by a metric, and the state from which a run goes on."""

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor, distributed

from runwright.contracts import StatefulLoader, Task
from runwright.loop.checkpoint_io import DurableCheckpoints
from runwright.rundir.checkpoint import named_in
from runwright.rundir.files import CHECKPOINTS, LAST, PREVIOUS
from runwright.signals import Interrupted, Signals

COUNTS = ("epoch", "step")
FIELD = re.compile(r"\{([^\W\d][\w.-]*)(?::([+ ]?0?\d{0,2}(?:\.\d{1,2})?[deEfFgG]?))?\}")  # name and format of a number


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
    raises `Interrupted`. Beside what Lightning saves it holds the random generators' states of each process,
    what the task and the data loader know of the epoch under way, and the metrics so far.

    Several processes look for signals together, every `trainer.log_every_n_steps` batches.

    Args:
        every_n_steps: save within epochs too, every that many optimizer steps.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise ValueError(f"every_n_steps must be null or a whole number of at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.signals: Signals | None = None  # of the run, where it handles them
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
        _keep_names(trainer, checkpoint["callbacks"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(io := trainer.strategy.checkpoint_io, DurableCheckpoints):
            io.keeps_replaced = True  # until this one no longer knows them
            replaced = [named_in(_folder(trainer), name) for name in self._loaded.get("replaced", [])]
            io.replaced |= {path for path in replaced if path}
        metrics = self._loaded.get("metrics", {}).items()  # of which names of files are made
        trainer.callback_metrics.update({key: x for key, x in metrics if isinstance(x, Tensor) and x.ndim == 0})
        if any(getattr(each, "stopping_reason_message", None) for each in trainer.early_stopping_callbacks):
            trainer.should_stop = True  # this run had been stopped early when it was saved

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.signals is not None:
            self.signals.listen()  # again: Lightning has put a handler of its own in the way
            self.signals.deferred = True
        rank, step, loaded, self._loaded = trainer.global_rank, trainer.global_step, self._loaded, {}
        states = loaded.get("random", [])
        if len(states) == trainer.world_size:
            _set_random_state(states[rank], pl_module.device)
        elif rank or states:  # else every process would drop the same units
            _seed(int(np.random.SeedSequence((torch.initial_seed(), step, rank)).generate_state(1)[0]))
        self._saved = (step, loaded.get("is_within_epoch", False))
        if loaded.get("is_within_epoch"):
            if isinstance(trainer.train_dataloader, StatefulLoader):
                trainer.train_dataloader.load_state_dict(loaded["loader"])
            if isinstance(pl_module, Task):
                pl_module.load_epoch_state(loaded["task"][rank :: trainer.world_size])
        elif loaded:  # the next epoch is to be like any other
            loop, epochs = trainer.fit_loop, trainer.fit_loop.epoch_progress.total
            loop.restarting, epochs.ready = False, epochs.completed
            loop.reset_restart_stage()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size == 1:
            self._signal = self.signals.pending if self.signals is not None else 0
        elif batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # undeclared
            self._agree_on_signal(trainer, pl_module)
        is_due = self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0
        if (is_due or self._signal) and _can_resume_after(trainer, batch_idx):
            self._save(trainer, pl_module, is_within_epoch=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree_on_signal(trainer, pl_module)
        self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.signals is not None:
            self.signals.deferred = False
        self.on_train_epoch_start(trainer, pl_module)

    def _agree_on_signal(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pending = self.signals.pending if self.signals is not None else 0
        self._signal = int(trainer.strategy.reduce(torch.tensor(pending, device=pl_module.device), reduce_op="max"))

    def _save(self, trainer: Trainer, pl_module: LightningModule, is_within_epoch: bool = False) -> None:
        is_new = self._saved != (trainer.global_step, is_within_epoch)
        if is_new and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # undeclared
            for logger in trainer.loggers:
                logger.save()  # what it holds back would be a gap in the curves of the resumed run
            loader: Any = trainer.train_dataloader
            epoch = pl_module.epoch_state() if is_within_epoch and isinstance(pl_module, Task) else {}
            folder, io = _folder(trainer), trainer.strategy.checkpoint_io
            self._to_save = {
                "replaced": [path.name for path in io.replaced] if isinstance(io, DurableCheckpoints) else [],
                "is_within_epoch": is_within_epoch,
                "random": _from_all_processes(_random_state(pl_module.device)),
                "task": _from_all_processes(dict(epoch)),
                "loader": loader.state_dict() if isinstance(loader, StatefulLoader) else {},
                "metrics": dict(trainer.callback_metrics),
            }
            trainer.save_checkpoint(folder / LAST, storage_options={"previous": folder / PREVIOUS})
            self._to_save, self._saved = {}, (trainer.global_step, is_within_epoch)
            if isinstance(io, DurableCheckpoints):
                io.remove_replaced()
        if self._signal:
            raise Interrupted(self._signal)


def check_filename(filename: object) -> None:
    """Refuse what Lightning would make other things of than a name: it hands the text to `str.format`.

    Raises:
        ValueError: it is not a file's name with `{epoch}`, `{step}` and metrics, such as `{val_loss:.3f}`.
    """
    is_name = isinstance(filename, str) and not set(FIELD.sub("", filename)) & set("{}/\\\0")
    try:
        for name, spec in FIELD.findall(filename) if is_name else ():
            format(1 if name in COUNTS else 0.5, spec)
    except ValueError:
        is_name = False
    if not is_name and filename is not None:
        raise ValueError(
            f"filename must be a file's name, in which {{epoch}}, {{step}} and metrics, such as {{val_loss:.3f}}, "
            f"may stand, got {filename}"
        )


def fields(filename: str) -> list[str]:
    """The metrics whose values a checkpoint's name tells."""
    return [name for name, _ in FIELD.findall(filename) if name not in COUNTS]


def _can_resume_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether the next thing is a batch whose gradients start from nothing, not a validation or the epoch's end."""
    num_batches = batch_idx + 1
    accumulates = num_batches % trainer.accumulate_grad_batches != 0
    return not (accumulates or num_batches % (trainer.val_check_batch or 1) == 0 or trainer.fit_loop.epoch_loop.done)


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / CHECKPOINTS


def _keep_names(trainer: Trainer, states: dict[str, Any]) -> None:
    """Let the states of Lightning's `ModelCheckpoint` name files of its folder here alone, for it removes them."""
    for callback in trainer.checkpoint_callbacks:
        state = states.get(callback.state_key)
        if isinstance(callback, ModelCheckpoint) and state:
            folder = Path(callback.dirpath or _folder(trainer))
            known = [(named_in(folder, path), score) for path, score in state["best_k_models"].items()]
            state["best_k_models"] = {str(path): score for path, score in known if path}
            state["dirpath"] = callback.dirpath
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = str(named_in(folder, state[key]) or "")
            if state["kth_best_model_path"] not in state["best_k_models"]:  # from which Lightning takes it
                state["kth_best_model_path"] = next(iter(state["best_k_models"]), "")


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
