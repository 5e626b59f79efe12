"""Supervised learning: classification or regression, by the loss and the metrics it is given."""

import logging
from collections.abc import Callable, Mapping, Sequence
from math import ceil, nan
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric, MetricCollection

from litmlp.data.in_memory import Batches, Samples
from litmlp.optim import Schedule, describe, parameter_groups

log = logging.getLogger(__name__)

LOSSES_AT_ONCE = 256
"""Batches between two updates of the epoch's mean loss: one for each would cost a step more than its loss does."""


class SupervisedTask(LightningModule):
    """Trains a model on batches (x, y).

    Logs `train_loss` (mean over the epoch's samples) and `train_loss_step` (every `log_every_n_steps` batches);
    `val_loss`, `test_loss`, and for each of `metrics` `val_<name>` and `test_<name>`, exact over the whole set.

    Args:
        model: maps x, (B, *sample_shape), to logits or estimates, (B, num_outputs).
        loss: of the model's output and y; its mean over the batch.
        metrics: name -> metric, updated with the model's output as `preds` and y as `target`.
        optimizer: called with the parameter groups.
        scheduler: called with the optimizer and the length of the run.
        decay, param_groups: see `optim.parameter_groups`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Mapping[str, Metric],
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Schedule,
        decay: Literal["weights", "all"] = "weights",
        param_groups: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.optimizer, self.scheduler = optimizer, scheduler
        self.decay, self.param_groups = decay, param_groups
        self.train_loss = MeanMetric(nan_strategy=nan)  # which leaves a NaN where it is
        scores = MetricCollection({"loss": MeanMetric(nan_strategy=nan), **metrics})
        self._score_names = list(scores.keys(keep_base=True))
        self.val_scores = scores.clone(prefix="val_")
        self.test_scores = scores.clone(prefix="test_")
        trial = optimizer(parameter_groups(model, decay, param_groups))  # to fail here if it must
        for rule in param_groups:
            unknown = set(rule) - {"pattern", *trial.defaults}
            if unknown:
                raise ValueError(f"param_groups: {type(trial).__name__} has no {', '.join(unknown)}, got {rule}")
        self._losses: list[Tensor] = []  # of the batches since train_loss was updated
        self._sizes: list[int] = []
        self.last_validated = 0  # step
        self._is_new = False  # the last validation, to a plateau per epoch

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it some 40 times a step; nn.Module's way takes 2 us each
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def metric_keys(self, stage: Literal["train", "val", "test"]) -> list[str]:
        """Keys of what is logged at the end of an epoch of that stage: what can be monitored or reported."""
        if stage == "train":
            return ["train_loss"]
        return [f"{stage}_{name}" for name in self._score_names]

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def on_train_start(self) -> None:
        self._log_every_n_steps: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # undeclared

    def training_step(self, batch: Samples, batch_idx: int) -> Tensor:
        x, y = batch
        output = self.model(x)
        loss = self.loss(output, y) if len(y) else output.sum()  # nothing to learn from, but DDP waits for a gradient
        self._losses.append(loss.detach())
        self._sizes.append(len(y))
        if len(self._losses) >= LOSSES_AT_ONCE:
            self._update_train_loss()
        if self.trainer.world_size > 1:
            loss = loss * self._share(batch_idx, len(y))
        if self.scheduler.reads_each_step:
            self.log("train_loss", loss, on_step=True, on_epoch=False, logger=False, sync_dist=True)
        if batch_idx % self._log_every_n_steps == 0:
            value = self.trainer.strategy.reduce(loss.detach(), reduce_op="mean").item()
            for logger in self.loggers:
                logger.log_metrics({"train_loss_step": value}, step=self.global_step)
        return loss

    def _share(self, batch_idx: int, num_samples: int) -> float:
        """The factor by which the mean of the processes' losses becomes the mean over the global batch."""
        loader = self.trainer.train_dataloader
        if not isinstance(loader, Batches):
            return 1.0
        return self.trainer.world_size * num_samples / loader.size(batch_idx)

    def _update_train_loss(self) -> None:
        self.train_loss.update(torch.stack(self._losses), torch.tensor(self._sizes, device=self.device))
        self._losses.clear()
        self._sizes.clear()

    def on_train_epoch_end(self) -> None:
        if self._losses:
            self._update_train_loss()
        self.log("train_loss", self.train_loss.compute())
        self.train_loss.reset()
        plateau = self.lr_schedulers()
        if isinstance(plateau, ReduceLROnPlateau) and self.scheduler.interval == "epoch":
            value = self.trainer.callback_metrics.get(str(self.scheduler.monitor))
            is_due = (self.current_epoch + 1) % self.scheduler.frequency == 0
            is_due &= self._is_new or not str(self.scheduler.monitor).startswith("val_")
            if is_due and value is not None and self.trainer.is_last_batch:  # not where max_steps ends an epoch early
                plateau.step(value)
                self._is_new = False

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any | None) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)
        elif self.scheduler.interval == "step":
            scheduler.step(self.trainer.callback_metrics[str(self.scheduler.monitor)])

    def state_of_epoch(self) -> dict[str, Any]:
        """What `train_loss` has gathered of the epoch under way, for a run that is resumed there."""
        losses, metric = [loss.cpu() for loss in self._losses], self.train_loss
        return {"losses": losses, "sizes": self._sizes, "sum": metric.mean_value.cpu(), "weight": metric.weight.cpu()}

    def resume_epoch(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from these: this process's own, or those of all whose part it takes over."""
        for state in states:
            self._losses += [loss.to(self.device) for loss in state["losses"]]
            self._sizes += state["sizes"]
            self.train_loss.mean_value += state["sum"].to(self.device)
            self.train_loss.weight += state["weight"].to(self.device)

    def validation_step(self, batch: Samples, batch_idx: int) -> None:
        self._score(self.val_scores, batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_scores.compute())
        self.val_scores.reset()
        self.last_validated, self._is_new = self.global_step, not self.trainer.sanity_checking

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["validation"] = {"step": self.last_validated, "is_new": self._is_new}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None and self._trainer.state.fn == "fit" and "validation" in checkpoint:
            self.last_validated, self._is_new = checkpoint["validation"]["step"], checkpoint["validation"]["is_new"]

    def test_step(self, batch: Samples, batch_idx: int) -> Tensor | None:
        return self._score(self.test_scores, batch)  # for callbacks that look at single samples

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_scores.compute())
        self.test_scores.reset()

    def _score(self, scores: MetricCollection, batch: Samples) -> Tensor | None:
        x, y = batch
        if len(y) == 0:  # this process's share of a batch smaller than the number of processes
            return None
        output = self.model(x)
        # each metric takes from these what its update() names
        scores.update(preds=output, target=y, value=self.loss(output, y), weight=len(y))
        return output

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(parameter_groups(self.model, self.decay, self.param_groups))
        if self.trainer.is_global_zero:
            log.info(describe(optimizer))
        self.trainer.fit_loop.setup_data()  # else the number of batches is unknown where max_steps ends the run
        num_steps = self.trainer.estimated_stepping_batches
        steps_per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        scheduler = self.scheduler(optimizer, num_steps, steps_per_epoch)
        if isinstance(scheduler["scheduler"], ReduceLROnPlateau):  # Lightning would step it after callbacks have saved
            scheduler["reduce_on_plateau"] = False
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
