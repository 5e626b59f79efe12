"""What to do about NaN and infinity in training."""

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

log = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """A loss, a weight, or a monitored metric is NaN or infinite."""


class NonFinite(Callback):
    """Checks the losses, the weights, and the metrics that other callbacks monitor for NaN and infinity.

    A non-finite gradient makes the weights non-finite, and these the next loss. Where an activation hides an infinite
    weight from the loss, the check of the weights finds it, before each checkpoint and at the end of each epoch.

    Args:
        action: `stop` raises within `trainer.log_every_n_steps` batches and before any checkpoint is written, so that
            the last one is good; only these checks synchronise with the device. `skip` skips the updates whose gradient
            is not finite, which synchronises on every step. `ignore` does nothing.

    Raises:
        ValueError: unknown action.
    """

    def __init__(self, action: Literal["stop", "skip", "ignore"] = "stop") -> None:
        if action not in ("stop", "skip", "ignore"):
            raise ValueError(f"action (on_nonfinite) must be stop, skip or ignore, got {action!r}")
        self.action = action
        self._losses: list[Tensor] = []  # of the batches since the last check
        self._num_skipped = 0
        if action == "skip":  # only then, because a hook within the step slows down every step
            self.on_before_optimizer_step = self._skip  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.action == "stop":
            if outputs:
                self._losses.append(outputs["loss"])
            if batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # undeclared
                self._check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._num_skipped:
            log.warning("epoch %d: updates skipped: %d", trainer.current_epoch, self._num_skipped)
            self._num_skipped = 0
        if self.action == "stop":
            self._check(trainer, pl_module, check_weights=True)
            monitored = {getattr(each, "monitor", None) for each in trainer.callbacks}  # type: ignore[attr-defined]
            for key, value in trainer.callback_metrics.items():
                if key in monitored and not value.isfinite():
                    raise NonFiniteError(f"epoch {trainer.current_epoch}: {key} is {value.item()}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.action == "stop":
            self._check(trainer, pl_module, check_weights=True)

    def _check(self, trainer: Trainer, pl_module: LightningModule, check_weights: bool = False) -> None:
        losses, self._losses = [loss.float() for loss in self._losses], []
        sums = [_sum(pl_module.parameters())] if check_weights else []
        if not (losses or sums):
            return
        numbers = torch.stack([*losses, *sums])
        numbers = trainer.strategy.reduce(numbers, reduce_op="mean")  # so that all processes stop together
        finite = numbers.isfinite()
        if finite.all():
            return
        first = int((~finite).nonzero()[0])
        in_loss = first < len(losses)
        batches_since = len(losses) - 1 - first if in_loss else 0
        step = trainer.global_step - batches_since // trainer.accumulate_grad_batches
        what = f"the loss is {numbers[first].item()}" if in_loss else "the weights are not finite"
        affected = [name for name, weight in pl_module.named_parameters() if not weight.isfinite().all()]
        layer = affected[0].rpartition(".")[0] if affected else "none"
        raise NonFiniteError(f"step {step:,}: {what}; first layer affected: {layer}")

    def _skip(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        if gradients and not _sum(gradients).isfinite():
            optimizer.zero_grad(set_to_none=True)  # no gradient, no update
            self._num_skipped += 1


@torch.no_grad()
def _sum(tensors: Iterable[Tensor]) -> Tensor:
    """A sum that is finite if all values are; on a CPU four times as fast as their maximum."""
    return torch.stack([each.sum(dtype=torch.float32) for each in tensors]).sum()
