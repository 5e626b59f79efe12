"""The direct step loop: a training step with less overhead than Lightning's."""

import inspect
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import lightning
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

log = logging.getLogger(__name__)

CHECKED_VERSIONS = "2.6."
"""Prefix of the Lightning versions that this loop was checked against; with others Lightning's own loop is used."""
BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end")
STEP_HOOKS = (
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)
TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")
MODULE_HOOKS = (
    *BATCH_HOOKS,
    *STEP_HOOKS,
    *TRANSFER_HOOKS,
    "backward",
    "optimizer_step",
    "optimizer_zero_grad",
    "configure_gradient_clipping",
)


class TrainingEpoch(_TrainingEpochLoop):
    """Does what Lightning does in a step, without checking in every step for features that the run does not use.

    The order is the same, except that gradients are cleared before the forward pass rather than after it. So their
    memory is free during the forward pass and still in the cache, as in a plain loop. A `training_step` that reads the
    gradients of the previous step finds none.

    Lightning's own step calls a dozen hooks of each callback and of the module, through layers for strategies and
    precisions. That takes half a millisecond, as long as the computation of a small network. Lightning's step is still
    used where a run has more than one device, a precision other than 32-true, accumulated or clipped gradients, a
    profiler, or a hook within the step; see `_is_direct`.
    """

    @classmethod
    def install(cls, trainer: Trainer) -> None:
        """Make this the loop of a trainer that has not started, if it was checked with the installed Lightning."""
        if not lightning.__version__.startswith(CHECKED_VERSIONS):
            log.info("step_loop=direct was not checked with Lightning %s: its own loop is used", lightning.__version__)
            return
        old = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, old.min_steps, old.max_steps)

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        trainer = self.trainer
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self.is_direct = _is_direct(trainer, data_fetcher)
        self._hooks = {
            hook: [getattr(each, hook) for each in callbacks if _overrides(each, Callback, hook)]
            for hook in BATCH_HOOKS
        }
        schedules = [config for config in trainer.lr_scheduler_configs if config.interval == "step"]
        self._steps_schedule = bool(schedules)
        # Whether nothing but a request to stop can come between two steps.
        self._is_eventless = trainer.val_check_interval == 1.0 and not any(each.reduce_on_plateau for each in schedules)

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self.restarting or not self.is_direct:
            return super().advance(data_fetcher)
        trainer, task, progress = self.trainer, self.trainer.lightning_module, self.batch_progress
        connector, logged = trainer._logger_connector, self._results
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        device = trainer.strategy.root_device
        if not isinstance(batch, tuple) or any(not isinstance(x, Tensor) or x.device != device for x in batch):
            batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        progress.increment_ready()
        connector._first_loop_iter = connector._first_loop_iter is None
        logged.batch, logged.batch_size, logged.dataloader_idx = batch, None, None
        self._call("on_train_batch_start", batch, batch_idx)
        progress.increment_started()
        output = self._optimize(task, batch, batch_idx)
        progress.increment_processed()
        if self._steps_schedule:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        self._call("on_train_batch_end", output, batch, batch_idx)
        progress.increment_completed()
        if any(not result.has_reset for result in logged.values()):
            connector.on_batch_end()
            connector.update_train_step_metrics()
        logged.batch = logged.batch_size = None
        return None

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        trainer, is_last = self.trainer, self.batch_progress.is_last_batch
        if self.is_direct and self._is_eventless and not (is_last or trainer.should_stop or trainer.received_sigterm):
            self._batches_that_stepped += 1
        else:
            super().on_advance_end(data_fetcher)

    def _optimize(self, task: LightningModule, batch: Any, batch_idx: int) -> dict[str, Any]:
        optimizer, progress = self.trainer.optimizers[0], self.automatic_optimization.optim_progress.optimizer
        output: Any = None

        def closure() -> Tensor | None:
            nonlocal output
            progress.zero_grad.increment_ready()
            progress.zero_grad.increment_started()
            for group in optimizer.param_groups:  # as zero_grad() does, but without its profiler context
                for weight in group["params"]:
                    weight.grad = None
            progress.zero_grad.increment_completed()
            vars(task)["_current_fx_name"] = "training_step"  # setting it through nn.Module takes 2 us
            output = task.training_step(batch, batch_idx)
            vars(task)["_current_fx_name"] = None
            loss: Tensor | None = output["loss"] if isinstance(output, Mapping) else output
            if loss is not None:
                loss.backward()
            return loss

        progress.step.increment_ready()
        optimizer.step(closure)  # type: ignore[arg-type]  # a skipped batch has no loss
        progress.step.increment_completed()
        if isinstance(output, Mapping):
            return {**output, "loss": output["loss"].detach()}
        return {} if output is None else {"loss": output.detach()}

    def _call(self, hook: str, *args: Any) -> None:
        task = self.trainer.lightning_module
        vars(task)["_current_fx_name"] = hook
        for defined in self._hooks[hook]:
            defined(self.trainer, task, *args)
        vars(task)["_current_fx_name"] = None


def _is_direct(trainer: Any, data_fetcher: _DataFetcher) -> bool:  # Lightning does not type the trainer's attributes
    task: LightningModule = trainer.lightning_module
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(trainer.precision_plugin) is Precision
        and isinstance(trainer.profiler, PassThroughProfiler)
        and task.automatic_optimization
        and not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
        and len(inspect.signature(task.training_step).parameters) == 2
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and not any(_overrides(task, LightningModule, hook) for hook in MODULE_HOOKS)
        and not any(_overrides(trainer.datamodule, LightningDataModule, hook) for hook in TRANSFER_HOOKS)
        and not any(_overrides(each, Callback, hook) for each in trainer.callbacks for hook in STEP_HOOKS)
        and not _overrides(trainer.optimizers[0], Optimizer, "zero_grad")
    )


def _overrides(instance: object, base: type, hook: str) -> bool:
    """Whether the instance or its class defines its own method of that name."""
    method = getattr(instance, hook, getattr(base, hook))
    return getattr(method, "__func__", method) is not getattr(base, hook)


class NoProfiler(PassThroughProfiler):
    """Lightning's default enters a generator-based context about 50 times a step; this one enters a null context."""

    _nothing: nullcontext[None] = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]  # a context manager is one
        return self._nothing
