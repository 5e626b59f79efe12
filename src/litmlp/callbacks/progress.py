"""What a run says while it trains."""

import logging
import sys
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

log = logging.getLogger(__name__)


class Progress(TQDMProgressBar):
    """Lightning's bar on a terminal; elsewhere, in a log file say, one line per epoch.

    Args:
        refresh_rate: batches between two updates of the bar.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        self._on_terminal = sys.stdout.isatty()
        super().__init__(refresh_rate if self._on_terminal else 0)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" not in key}
        shown = {key: f"{value:.4f}" for key, value in sorted(metrics.items())}
        bar, batch_size = self._train_progress_bar, getattr(trainer.datamodule, "batch_size", None)  # type: ignore[attr-defined]
        rate = bar.format_dict["rate"] if bar is not None and trainer.training else None  # of batches, by tqdm's clock
        if rate and batch_size:
            shown["samples/s"] = f"{rate * batch_size:,.0f}"
        return shown

    # An epoch's line is printed once the next begins, or none does: at its own end some metrics are yet to be logged.
    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_epoch_start(trainer, *args)
        self._print_line(trainer)

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        super().on_train_end(trainer, *args)
        self._print_line(trainer)

    def _print_line(self, trainer: Trainer) -> None:
        metrics = self.get_metrics(trainer, trainer.lightning_module)
        if metrics and not self._on_terminal and trainer.is_global_zero:
            shown = "  ".join(f"{key} {value}" for key, value in metrics.items())
            of = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
            log.info("epoch %d%s  %s", trainer.current_epoch, of, shown)
