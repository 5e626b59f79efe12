"""Norms of the weights, to see the effect of weight decay and max-norm."""

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn

from runwright.loop.epoch_end import epoch_end_step


class WeightNorm(Callback):
    """Logs the L2 norm of each layer's weights as `norm/<layer>`, and of all weights as `norm/all`.

    Weights are trainable parameters with two or more dimensions, not biases and normalisation parameters.

    Args:
        every_n_steps: log every this many optimizer steps; None: only at the end of each epoch.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and (not isinstance(every_n_steps, int) or every_n_steps < 1):
            raise ValueError(f"every_n_steps must be null or a whole number of at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._logged_step = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, pl_module, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, epoch_end_step(trainer))

    def _log(self, trainer: Trainer, task: LightningModule, step: int) -> None:
        if trainer.global_step == self._logged_step:  # already logged: an epoch's last step, or a batch within a step
            return
        self._logged_step = trainer.global_step
        model = getattr(task, "model", task)
        norms = weight_norms(model)
        trainer.callback_metrics.update({name: torch.tensor(norm) for name, norm in norms.items()})
        for logger in trainer.loggers:
            logger.log_metrics(norms, step=step)


@torch.no_grad()
def weight_norms(model: nn.Module) -> dict[str, float]:
    """L2 norms by tag, computed on the weights' device and copied in one transfer."""
    weights = {
        name.removesuffix(".weight"): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.ndim >= 2
    }
    if not weights:
        return {}
    norms = torch.stack([weight.norm() for weight in weights.values()])
    tags = [f"norm/{name}" for name in weights]
    return dict(zip([*tags, "norm/all"], torch.cat([norms, norms.norm()[None]]).tolist(), strict=True))
