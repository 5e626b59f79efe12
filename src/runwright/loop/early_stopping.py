"""An early end, once the monitored value no longer improves."""

from lightning import LightningModule, Trainer
from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but each value counts once: a `val_` metric after each validation, another after each whole epoch.

    Lightning goes by how often there is validation, not by what is monitored. So it would count a training loss again
    at each validation within the epoch after it, and a validation loss again where the run's end cuts an epoch short.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._check_on_train_epoch_end is None:
            self._check_on_train_epoch_end = not self.monitor.startswith("val_")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)
