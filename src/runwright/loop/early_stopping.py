"""Early stopping, once the monitored value no longer improves."""

from lightning import LightningModule, Trainer
from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but each value counts once: a `val_` metric after each validation, others after each complete epoch.

    Lightning decides by how often the run validates, not by what is monitored. So it would count a training loss again
    at each validation within the next epoch, and a validation loss again where the run ends within an epoch.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._check_on_train_epoch_end is None:
            self._check_on_train_epoch_end = not self.monitor.startswith("val_")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)
