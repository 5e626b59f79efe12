"""Histograms of weights and gradients, for TensorBoard's HISTOGRAMS and DISTRIBUTIONS tabs."""

from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from runwright.loop.epoch_end import epoch_end_step


class Histograms(Callback):
    """Writes each parameter as `weights/<name>` and its gradient as `gradients/<name>`, after an epoch's last batch.

    Non-finite values are skipped.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        is_end = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        if is_end and trainer.is_global_zero:  # not at the epoch's end: validation clears the gradients
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    _write(logger, getattr(pl_module, "model", pl_module), epoch_end_step(trainer))


@torch.no_grad()
def _write(logger: TensorBoardLogger, model: torch.nn.Module, step: int) -> None:
    for name, parameter in model.named_parameters():
        for kind, values in (("weights", parameter), ("gradients", parameter.grad)):
            if values is not None and len(finite := values[values.isfinite()]):
                logger.experiment.add_histogram(f"{kind}/{name}", finite, step)
