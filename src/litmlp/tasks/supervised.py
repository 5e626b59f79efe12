"""Supervised learning: classification or regression, depending on the loss and the metrics."""

import logging
from collections.abc import Callable, Mapping, Sequence
from math import ceil, nan
from typing import Any, Literal

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics import MeanMetric, Metric, MetricCollection

from runwright.contracts import Mode, Prediction, Stage, Task

from ..data.in_memory import Batches, InMemoryData, Samples
from ..optim import Schedule, describe, parameter_groups
from .losses import check_suits, num_averaged

log = logging.getLogger(__name__)

LOSS_BUFFER_SIZE = 256
"""Batches between updates of the epoch's mean loss: an update per batch would cost more than the loss itself."""


OUTPUTS = {"classes": "logits of the classes", "labels": "logits of the labels", "values": "estimates"}


class SupervisedTask(LightningModule, Task):
    """Trains a model on batches (x, y).

    Logs `train_loss` (mean over the epoch's samples) and `train_loss_step` (every `log_every_n_steps` batches);
    `val_loss`, `test_loss`, and for each of `metrics` `val_<name>` and `test_<name>`, exact over the whole set. Means
    weight samples as the loss does: see `num_averaged`.

    Args:
        model: maps x, (B, *sample_shape), to logits or estimates, (B, num_outputs).
        loss: called with the model's output and y; the mean over the batch, or one of torch's weighted means.
        metrics: name -> metric, updated with the model's output as `preds` and y as `target`.
        optimizer: called with the parameter groups.
        scheduler: called with the optimizer and the length of the run.
        predicts: meaning of an output: `classes` (logits, one class per sample), `labels` (logits, each label on or
            off) or `values` (estimates).
        decay, param_groups: see `optim.parameter_groups`.

    Raises:
        ValueError: the loss is not a mean, or a pattern of `param_groups` matches no parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Mapping[str, Metric],
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Schedule,
        predicts: Literal["classes", "labels", "values"] = "classes",
        decay: Literal["weights", "all"] = "weights",
        param_groups: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        if predicts not in OUTPUTS:
            raise ValueError(f"predicts must be one of {', '.join(OUTPUTS)}, got {predicts!r}")
        reduction = getattr(loss, "reduction", "mean")
        if reduction not in ("mean", "batchmean"):
            raise ValueError(f"loss.reduction must be mean, got {reduction}: a sum depends on the batch size")
        self.model, self.loss, self.predicts = model, loss, predicts
        self.optimizer, self.scheduler = optimizer, scheduler
        self.decay, self.param_groups = decay, param_groups
        self.train_loss = MeanMetric(nan_strategy=nan)  # `nan` keeps NaN values instead of dropping them
        scores = MetricCollection({"loss": MeanMetric(nan_strategy=nan), **metrics})
        self._score_names = list(scores.keys(keep_base=True))
        self.val_scores = scores.clone(prefix="val_")
        self.test_scores = scores.clone(prefix="test_")
        trial = optimizer(parameter_groups(model, decay, param_groups))  # to fail early
        for rule in param_groups:
            unknown = set(rule) - {"pattern", *trial.defaults}
            if unknown:
                raise ValueError(f"param_groups: {type(trial).__name__} has no {', '.join(unknown)}, got {rule}")
        self._losses: list[Tensor] = []  # of the batches since train_loss was updated
        self._sizes: list[float | Tensor] = []  # divisor of each of these means
        self._has_new_validation = False  # one that a per-epoch plateau scheduler has not seen yet

    def metric_keys(self, stage: Stage) -> list[str]:
        if stage == "train":
            return ["train_loss"]
        return [f"{stage}_{name}" for name in self._score_names]

    def mode_of(self, key: str) -> Mode | None:
        if key.endswith("loss"):
            return "min"
        metric = dict(self.val_scores.items(keep_base=True, copy_state=False)).get(key.partition("_")[2])
        more_is_better = getattr(metric, "higher_is_better", None)
        return None if not isinstance(more_is_better, bool) else "max" if more_is_better else "min"

    @property
    def outputs_are(self) -> str:
        return OUTPUTS[self.predicts]

    def predictions(self, outputs: Tensor) -> list[Prediction]:
        if self.predicts == "classes":
            probabilities = outputs.softmax(1)
            return [Prediction("class", probabilities.argmax(1)), Prediction("probabilities", probabilities, "p")]
        if self.predicts == "labels":
            probabilities = outputs.sigmoid()
            labels = Prediction("labels", (probabilities > 0.5).long(), "label")
            return [labels, Prediction("probabilities", probabilities, "p")]
        return [Prediction("estimates", outputs, "y")]

    def check(self, data: LightningDataModule) -> None:
        """Check that the loss and the metrics suit the outputs and the targets."""
        if not isinstance(data, InMemoryData) or data.train is None:
            return  # other data modules would have to be read for this
        check_suits(self.loss, self.val_scores, data.num_outputs, data.train.y)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def setup(self, stage: str) -> None:
        # By default a loss ignores a negative label. InMemoryData has none, so all samples count equally.
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]  # undeclared
        self._is_plain_mean = not isinstance(self.loss, nn.CrossEntropyLoss | nn.NLLLoss) or (
            self.loss.weight is None and self.loss.ignore_index < 0 and isinstance(datamodule, InMemoryData)
        )

    def on_train_start(self) -> None:
        self._log_every_n_steps: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # undeclared

    def training_step(self, batch: Samples, batch_idx: int) -> Tensor:
        x, y = batch
        output = self.model(x)
        size = self._size(y)
        loss = self.loss(output, y) if size else 0 * output.sum()  # no samples in this share, but DDP needs a gradient
        self._losses.append(loss.detach())
        self._sizes.append(size)
        if len(self._losses) >= LOSS_BUFFER_SIZE:
            self._update_train_loss()
        if self.trainer.world_size > 1:
            loss = loss * self._share(batch_idx, size)
        if self.scheduler.reads_each_step:
            self.log("train_loss", loss, on_step=True, on_epoch=False, logger=False, sync_dist=True)
        if batch_idx % self._log_every_n_steps == 0:
            value = self.trainer.strategy.reduce(loss.detach(), reduce_op="mean").item()
            for logger in self.loggers:
                logger.log_metrics({"train_loss_step": value}, step=self.global_step)
        return loss

    def _size(self, y: Tensor) -> float | Tensor:
        return len(y) if self._is_plain_mean else num_averaged(self.loss, y)

    def _share(self, batch_idx: int, size: float | Tensor) -> float | Tensor:
        """The factor on this process's loss with which the mean over processes is the mean over the global batch."""
        loader = self.trainer.train_dataloader
        if not self._is_plain_mean:  # here all processes must take part, also one without samples
            mean = torch.as_tensor(size, dtype=torch.float32, device=self.device).clone()  # reduce works in place
            mean = self.trainer.strategy.reduce(mean, reduce_op="mean")
            return size / mean if mean else 1.0
        if not isinstance(loader, Batches):
            return 1.0
        return self.trainer.world_size * size / loader.size(batch_idx)

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
            is_due &= self._has_new_validation or not str(self.scheduler.monitor).startswith("val_")
            if is_due and value is not None and self.trainer.is_last_batch:  # False where max_steps ends an epoch early
                plateau.step(value)
                self._has_new_validation = False

    def lr_scheduler_step(self, scheduler: LRScheduler, metric: Any | None) -> None:
        if not isinstance(scheduler, ReduceLROnPlateau):
            super().lr_scheduler_step(scheduler, metric)
        elif self.scheduler.interval == "step":
            scheduler.step(self.trainer.callback_metrics[str(self.scheduler.monitor)])

    def epoch_state(self) -> dict[str, Any]:
        losses, metric = [loss.cpu() for loss in self._losses], self.train_loss
        sizes = [float(size) for size in self._sizes]
        return {"losses": losses, "sizes": sizes, "sum": metric.mean_value.cpu(), "weight": metric.weight.cpu()}

    def load_epoch_state(self, states: Sequence[Mapping[str, Any]]) -> None:
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
        self._has_new_validation = not self.trainer.sanity_checking

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["validation_is_new"] = self._has_new_validation

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._trainer is not None and self._trainer.state.fn == "fit":
            self._has_new_validation = checkpoint.get("validation_is_new", False)

    def test_step(self, batch: Samples, batch_idx: int) -> Tensor | None:
        return self._score(self.test_scores, batch)  # for callbacks that inspect single samples

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_scores.compute())
        self.test_scores.reset()

    def _score(self, scores: MetricCollection, batch: Samples) -> Tensor | None:
        x, y = batch
        if len(y) == 0:  # this process's share of a batch smaller than the number of processes
            return None
        output, size = self.model(x), self._size(y)
        loss = self.loss(output, y) if size else output.new_zeros(())  # torch's is NaN if all samples are ignored
        scores.update(
            preds=output, target=y, value=loss, weight=size
        )  # each metric takes the arguments of its update()
        return output

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(parameter_groups(self.model, self.decay, self.param_groups))
        if self.trainer.is_global_zero:
            log.info(describe(optimizer))
        self.trainer.fit_loop.setup_data()  # otherwise the number of batches is unknown if max_steps is set
        num_steps = self.trainer.estimated_stepping_batches
        steps_per_epoch = ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        scheduler = self.scheduler(optimizer, num_steps, steps_per_epoch)
        if isinstance(
            scheduler["scheduler"], ReduceLROnPlateau
        ):  # Lightning would step it after the callbacks have saved
            scheduler["reduce_on_plateau"] = False
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
