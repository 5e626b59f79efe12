"""Checkpoints: the best weights by a metric, and the last state, from which a run is resumed."""

import random
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, Timer, WeightAveraging
from lightning.pytorch.loops import _Loop
from torch import Tensor, distributed

from runwright.contracts import StatefulLoader, Task
from runwright.loop.checkpoint_io import DurableCheckpoints
from runwright.rundir.checkpoint import named_in
from runwright.rundir.files import CHECKPOINTS, LAST, PREVIOUS
from runwright.signals import Interrupted, Signals

COUNTS = ("epoch", "step")
FIELD = re.compile(r"\{([^\W\d][\w.-]*)(?::([+ ]?0?\d{0,2}(?:\.\d{1,2})?[deEfFgG]?))?\}")  # name and number format


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, but a value always belongs to the weights saved with it, and NaN or infinity is never the best.

    With `save_on_train_epoch_end` a `val_` metric is considered once after each validation: at the end of the epoch,
    after the plateau scheduler has stepped, if the validation is the epoch's last event; otherwise at once, with the
    step in the file name. Other metrics are considered after each complete epoch. The directory never depends on the
    loggers.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = str(_folder(trainer))
        self._has_new_value = False  # the monitored metric has a value not considered yet
        validates_within = trainer.val_check_interval != 1.0 or trainer.check_val_every_n_epoch is None
        if validates_within and self.filename is not None and "{step" not in self.filename:
            self.filename += "-{step:06d}"
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, *args: Any) -> None:
        if (
            self._every_n_train_steps or self._train_time_interval is not None
        ):  # otherwise it would only read the clock, 16 us
            super().on_train_batch_end(*args)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not (self._save_on_train_epoch_end and str(self.monitor).startswith("val_")):
            super().on_validation_end(trainer, pl_module)
        elif trainer.is_last_batch:
            self._has_new_value = True
        else:
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_training_metric = self.monitor is not None and not self.monitor.startswith("val_")
        if self.monitor is None or self._has_new_value or (is_training_metric and trainer.is_last_batch):
            super().on_train_epoch_end(trainer, pl_module)
        self._has_new_value = False

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        return current is not None and bool(current.isfinite()) and super().check_monitor_top_k(trainer, current)


class LastCheckpoint(Checkpoint):
    """Saves `checkpoints/last.ckpt`, from which a run is resumed to the same bits; the one before is `previous.ckpt`.

    It saves between epochs, at the end of the run, every `every_n_steps`, and when a signal asks the run to stop, which
    raises `Interrupted`. In addition to Lightning's content the file holds the random states of each process, the state
    of the task and of the data loader within the current epoch, and the metrics so far.

    Where `max_steps` or `max_time` ends the run within an epoch, Lightning ends that epoch early: it may validate, it
    runs the hooks at the end of an epoch, and it steps schedulers. `last.ckpt` is saved after that. Its key
    `unfinished` holds the state from before it, so that the run, made longer, resumes within the epoch. The early end
    logs under the step after the last one (see `epoch_end_step`), and a resumed run replaces those values. A run that
    is stopped while gradients accumulate stops after the optimizer step that uses them.

    With several processes, all check for signals together, every `trainer.log_every_n_steps` batches.

    Args:
        every_n_steps: also save within epochs, every this many optimizer steps.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise ValueError(f"every_n_steps must be null or a whole number of at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.signals: Signals | None = None  # set by the run if it handles signals
        self._to_save: dict[str, Any] = {}  # what on_save_checkpoint adds to the file
        self._loaded: dict[str, Any] = {}  # the same, read from the file that the run is resumed from
        self._saved = (0, False)  # step of the last save, and whether it was within an epoch
        self._unfinished: dict[str, Any] = {}  # the state just before an epoch is ended early; else empty
        self._is_ending_early = False  # Lightning has begun to end this epoch early
        self._weights: dict[
            str, Any
        ] = {}  # after the last epoch, where weight averaging replaces them at the run's end
        self._is_to_stop = False  # stop as soon as accumulated gradients are used, or the complete epoch has ended
        self._last_step = -1  # max_steps
        self._signal = 0  # number of the signal that all processes agreed on, or 0

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._to_save:  # empty when another callback saves
            checkpoint["resume"] = self._to_save
            if self._weights:
                checkpoint["current_model_state"] = self._weights
            if self._unfinished and not self._to_save["is_within_epoch"]:
                checkpoint["unfinished"] = self._unfinished

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not trainer.training:
            return
        if "unfinished" in checkpoint and not is_over(checkpoint, trainer):
            checkpoint |= checkpoint.pop("unfinished")
            for optimizer, groups in zip(checkpoint["optimizer_states"], checkpoint.pop("param_groups"), strict=True):
                optimizer["param_groups"] = groups
            for each in (pl_module, *trainer.callbacks):  # type: ignore[attr-defined]  # these saw the state after the early end
                if each is not self:
                    each.on_load_checkpoint(*(() if each is pl_module else (trainer, pl_module)), checkpoint)
        self._loaded = checkpoint["resume"]
        _keep_names(trainer, checkpoint["callbacks"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(io := trainer.strategy.checkpoint_io, DurableCheckpoints):
            io.keeps_replaced = True  # until last.ckpt no longer refers to them
            replaced = [named_in(_folder(trainer), name) for name in self._loaded.get("replaced", [])]
            io.replaced |= {path for path in replaced if path}
        metrics = self._loaded.get("metrics", {}).items()  # they are part of file names
        trainer.callback_metrics.update({key: x for key, x in metrics if isinstance(x, Tensor) and x.ndim == 0})
        if any(getattr(each, "stopping_reason_message", None) for each in trainer.early_stopping_callbacks):
            trainer.should_stop = True  # early stopping had already ended this run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.signals is not None:
            self.signals.listen()  # again: Lightning has installed its own handler
            self.signals.deferred = True
        rank, step, loaded, self._loaded = trainer.global_rank, trainer.global_step, self._loaded, {}
        for optimizer in trainer.optimizers if loaded else ():
            for group in optimizer.param_groups:
                if missing := set(optimizer.defaults) - set(group):  # which the first step would find out
                    raise ValueError(f"{', '.join(sorted(missing))} of {type(optimizer).__name__} are not in it")
        states = loaded.get("random", [])
        if len(states) == trainer.world_size:
            _set_random_state(states[rank], pl_module.device)
        elif rank or states:  # otherwise dropout would drop the same units in every process
            _seed(int(np.random.SeedSequence((torch.initial_seed(), step, rank)).generate_state(1)[0]))
        self._saved, self._last_step = (step, loaded.get("is_within_epoch", False)), trainer.max_steps
        loop, epochs = trainer.fit_loop, trainer.fit_loop.epoch_progress.total
        if loaded:  # otherwise Lightning would not step a per-epoch plateau scheduler at the end of this epoch
            loop._restarting = False
        if loaded.get("is_within_epoch"):
            if loop.epoch_loop.restarted_on_train_batch_end:  # Lightning would have stepped per-batch plateaus next
                loop.epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
            if isinstance(trainer.train_dataloader, StatefulLoader):
                trainer.train_dataloader.load_state_dict(loaded["loader"])
            if isinstance(pl_module, Task):
                pl_module.load_epoch_state(loaded["task"][rank :: trainer.world_size])
        elif loaded:  # start the next epoch like any other
            # Not by the fit loop's own setter, which sets True wherever max_steps is set.
            _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]
            epochs.ready = epochs.completed
            loop.reset_restart_stage()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size == 1:
            self._signal = self.signals.pending if self.signals is not None else 0
        elif batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # undeclared
            self._agree_on_signal(trainer, pl_module)
        may_end = trainer.should_stop or self._is_to_stop or self._last_step != -1
        if (may_end or self._signal or self.every_n_steps is not None) and not _validates_next(trainer):
            self._between_batches(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._between_batches(trainer, pl_module)

    def _between_batches(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if one is due, when the next event is another batch or the early end of the epoch."""
        loop = trainer.fit_loop.epoch_loop
        is_within_step, is_last = loop._should_accumulate(), loop._num_ready_batches_reached()
        if trainer.should_stop or self._is_to_stop:  # if it stopped at once, Lightning would validate first
            self._is_to_stop = is_within_step or is_last
            trainer.should_stop = not self._is_to_stop
        if is_within_step or is_last or self._unfinished:
            return
        # The same as loop.done after this batch, except in a run that has just been resumed.
        if loop._is_training_done or (trainer.should_stop and trainer.fit_loop._can_stop_early):
            self._to_save = self._state(trainer, pl_module, is_within_epoch=True)
            state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            kept = {key: value for key, value in state.items() if key not in ("state_dict", "optimizer_states")}
            kept["param_groups"] = [
                each["param_groups"] for each in state["optimizer_states"]
            ]  # a plateau scheduler changes them
            self._unfinished, self._to_save = deepcopy(kept), {}  # the early end changes some of it in place
        elif self._signal or (self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer, pl_module, is_within_epoch=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_start(trainer)
        trainer.should_stop |= self._is_to_stop
        self._is_to_stop = False
        if any(isinstance(each, WeightAveraging) for each in trainer.callbacks):  # type: ignore[attr-defined]
            self._weights = deepcopy(pl_module.state_dict())

    def on_validation_start(self, trainer: Trainer, *args: Any) -> None:
        if self._unfinished and not self._is_ending_early:  # the early end begins with its validation, if it has one
            self._is_ending_early = True
            trainer.fit_loop.epoch_loop._batches_that_stepped += 1  # Lightning logs under this step

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weights = {}
        self._agree_on_signal(trainer, pl_module)
        self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.signals is not None:
            self.signals.deferred = False
        self._agree_on_signal(trainer, pl_module)
        self._save(trainer, pl_module)

    def _agree_on_signal(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pending = self.signals.pending if self.signals is not None else 0
        self._signal = int(trainer.strategy.reduce(torch.tensor(pending, device=pl_module.device), reduce_op="max"))

    def _save(self, trainer: Trainer, pl_module: LightningModule, is_within_epoch: bool = False) -> None:
        is_new = self._saved != (trainer.global_step, is_within_epoch)
        if is_new and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # undeclared
            for logger in trainer.loggers:
                logger.save()  # values it still buffers would be missing in the resumed run
            folder, io = _folder(trainer), trainer.strategy.checkpoint_io
            needed = _best_of(self._unfinished["callbacks"].values()) if self._unfinished else set()
            if isinstance(io, DurableCheckpoints):
                io.replaced -= needed
            if self._unfinished:  # a resumed run does not know the best checkpoints saved during the early end
                chosen = _best_of(vars(each) for each in trainer.checkpoint_callbacks)
                self._unfinished["resume"]["replaced"] = sorted(path.name for path in chosen - needed)
            self._to_save = self._state(trainer, pl_module, is_within_epoch)
            trainer.save_checkpoint(folder / LAST, storage_options={"previous": folder / PREVIOUS})
            self._to_save, self._saved = {}, (trainer.global_step, is_within_epoch)
            if isinstance(io, DurableCheckpoints):
                io.remove_replaced()
        if self._signal:
            raise Interrupted(self._signal)

    def _state(self, trainer: Trainer, pl_module: LightningModule, is_within_epoch: bool) -> dict[str, Any]:
        loader: Any = trainer.train_dataloader
        epoch = pl_module.epoch_state() if is_within_epoch and isinstance(pl_module, Task) else {}
        io = trainer.strategy.checkpoint_io
        return {
            "replaced": [path.name for path in io.replaced] if isinstance(io, DurableCheckpoints) else [],
            "is_within_epoch": is_within_epoch,
            "random": _from_all_processes(_random_state(pl_module.device)),
            "task": _from_all_processes(dict(epoch)),
            "loader": loader.state_dict() if isinstance(loader, StatefulLoader) else {},
            "metrics": dict(trainer.callback_metrics),
        }


def is_over(checkpoint: Mapping[str, Any], trainer: Trainer) -> bool:
    """Whether the checkpoint's run ended within an epoch, and with this trainer's limits would end there again."""
    if "unfinished" not in checkpoint:
        return False
    states = checkpoint["unfinished"]["callbacks"]
    return (
        0 <= trainer.max_steps <= checkpoint["global_step"]
        or any(state.get("stopping_reason_message") for state in states.values())
        or any(
            isinstance(timer, Timer)
            and timer._duration is not None
            and states.get(timer.state_key, {}).get("time_elapsed", {}).get("train", 0.0) >= timer._duration
            for timer in trainer.callbacks  # type: ignore[attr-defined]  # undeclared
        )
    )


def _validates_next(trainer: Trainer) -> bool:
    """Whether a regular validation is due now, one that does not come from the end of the run."""
    loop, stops, trainer.should_stop = trainer.fit_loop.epoch_loop, trainer.should_stop, False
    is_due = loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
    trainer.should_stop = stops
    return is_due and not (loop.val_loop._combined_loader is not None and loop.val_loop.skip)


def _best_of(states: Iterable[Mapping[str, Any]]) -> set[Path]:
    return {Path(path) for state in states for path in state.get("best_k_models", ())}


def check_filename(filename: object) -> None:
    """Refuse a template that Lightning would not turn into a plain file name: it passes the text to `str.format`.

    Raises:
        ValueError: not a file name with fields such as `{epoch}`, `{step}` or `{val_loss:.3f}`.
    """
    is_name = isinstance(filename, str) and not set(FIELD.sub("", filename)) & set("{}/\\\0")
    try:
        for name, spec in FIELD.findall(str(filename)) if is_name else ():
            format(1 if name in COUNTS else 0.5, spec)
    except ValueError:
        is_name = False
    if not is_name and filename is not None:
        raise ValueError(
            "filename must be a file's name, with fields such as {epoch}, {step} or {val_loss:.3f} where wanted, "
            f"got {filename}"
        )


def fields(filename: str) -> list[str]:
    """The metrics that appear in a checkpoint file name."""
    return [name for name, _ in FIELD.findall(filename) if name not in COUNTS]


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / CHECKPOINTS


def _keep_names(trainer: Trainer, states: dict[str, Any]) -> None:
    """Restrict the paths in `ModelCheckpoint` states to the run's own folder: Lightning deletes these files."""
    for callback in trainer.checkpoint_callbacks:
        state = states.get(callback.state_key)
        if isinstance(callback, ModelCheckpoint) and state:
            folder = Path(callback.dirpath or _folder(trainer))
            known = [(named_in(folder, path), score) for path, score in state["best_k_models"].items()]
            state["best_k_models"] = {str(path): score for path, score in known if path}
            state["dirpath"] = callback.dirpath
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = str(named_in(folder, state[key]) or "")
            if state["kth_best_model_path"] not in state["best_k_models"]:  # Lightning removes it from there
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
