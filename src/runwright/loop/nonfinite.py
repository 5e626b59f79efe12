"""What to do when numbers go wrong."""

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

log = logging.getLogger(__name__)


class NonFiniteError(FloatingPointError):
    """A loss, a weight, or a metric that the run goes by is NaN or infinite."""


class NonFinite(Callback):
    """Looks for NaN and infinity among the losses, the weights, and the metrics that other callbacks monitor.

    A gradient that is not finite shows in the weights that it has updated, and these in the next loss, or where an
    activation hides an infinite one, when the weights are looked at: before a checkpoint, at the end of an epoch.

    Args:
        action: `stop` raises within `trainer.log_every_n_steps` batches, and before any checkpoint is written, so that
            the last one is good; it waits for the device only then. `skip` leaves out the updates whose gradient is not
            finite, and waits for the device on every step to know. `ignore` does nothing.

    Raises:
        ValueError: another action.
    """

    def __init__(self, action: Literal["stop", "skip", "ignore"] = "stop") -> None:
        if action not in ("stop", "skip", "ignore"):
            raise ValueError(f"action (on_nonfinite) must be stop, skip or ignore, got {action!r}")
        self.action = action
        self._losses: list[Tensor] = []  # of the batches since the last look
        self._num_skipped = 0
        if action == "skip":  # only then, for a hook from inside the step slows every step
            self.on_before_optimizer_step = self._skip  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.action == "stop":
            if outputs:
                self._losses.append(outputs["loss"])
            if batch_idx % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]  # undeclared
                self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._num_skipped:
            log.warning("epoch %d: updates skipped: %d", trainer.current_epoch, self._num_skipped)
            self._num_skipped = 0
        if self.action == "stop":
            self._look(trainer, pl_module, at_weights=True)
            monitored = {getattr(each, "monitor", None) for each in trainer.callbacks}  # type: ignore[attr-defined]
            for key, value in trainer.callback_metrics.items():
                if key in monitored and not value.isfinite():
                    raise NonFiniteError(f"epoch {trainer.current_epoch}: {key} is {value.item()}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.action == "stop":
            self._look(trainer, pl_module, at_weights=True)

    def _look(self, trainer: Trainer, pl_module: LightningModule, at_weights: bool = False) -> None:
        losses, self._losses = [loss.float() for loss in self._losses], []
        sums = [_sum(pl_module.parameters())] if at_weights else []
        if not (losses or sums):
            return
        numbers = torch.stack([*losses, *sums])
        numbers = trainer.strategy.reduce(numbers, reduce_op="mean")  # so that all processes see the same and stop
        finite = numbers.isfinite()
        if finite.all():
            return
        first = int((~finite).nonzero()[0])
        in_loss = first < len(losses)
        batches_since = len(losses) - 1 - first if in_loss else 0
        step = trainer.global_step - batches_since // trainer.accumulate_grad_batches
        what = f"the loss is {numbers[first].item()}" if in_loss else "the gradient is not finite"
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
    """Finite where all of them are, and on a CPU four times as fast to have as the largest."""
    return torch.stack([each.sum(dtype=torch.float32) for each in tensors]).sum()
