"""The progress bar, or one line per epoch."""

import logging
import math
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich import get_console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from runwright.config.errors import printable
from runwright.contracts import Data

log = logging.getLogger(__name__)

INTERVAL = 0.1  # seconds between updates of the bar
BAR_WIDTH = 10


class Progress(ProgressBar):
    """One bar for the whole run on a terminal; elsewhere, as in a log file or a notebook, one line per epoch.

    The bar shows the loss of the last batch, the metrics of the last epoch, the learning rate of the first parameter
    group, the speed, and the remaining time if nothing stops the run early.

    Args:
        refresh_rate: batches between updates of the bar; it updates at most ten times a second.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__()
        self.refresh_rate = refresh_rate
        self._is_enabled = True
        self._bar: Bar | None = None
        self._loss = ""
        self._metrics: dict[str, str] = {}
        self._next_update = 0.0
        self._has_validated = True  # in the epoch printed next; True at first, for the metrics of a resumed run
        if get_console().is_terminal:  # only then, because a hook per batch slows down every step
            self.on_train_batch_end = self._show_batch  # type: ignore[assignment, method-assign]

    def enable(self) -> None:
        self._is_enabled = True

    def disable(self) -> None:
        self._is_enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self._is_enabled:
            get_console().print(*args, **kwargs)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        console = get_console()
        if not (self._is_enabled and console.is_terminal):
            return
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(BAR_WIDTH),
            TextColumn("{task.fields[metrics]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            auto_refresh=False,
        )
        num_steps = trainer.estimated_stepping_batches
        total = None if math.isinf(num_steps) else num_steps
        self._bar.add_task("", total=total, completed=trainer.global_step, epoch="", metrics="")
        self._bar.start()

    # An epoch is printed when the next one or the run's end begins: at its own end some metrics are not logged yet.
    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        self._print_epoch(trainer)

    def on_validation_end(self, *args: Any) -> None:
        self._has_validated = True

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        self._print_epoch(trainer)
        self.on_exception()

    def on_exception(self, *args: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _print_epoch(self, trainer: Trainer) -> None:
        logged = sorted(trainer.callback_metrics.items())
        metrics = {printable(key): f"{float(value):.4f}" for key, value in logged if "/" not in key}
        if self._bar is not None:
            self._metrics, loss = metrics, metrics.pop("train_loss", None)
            self._loss = f"loss {loss}" if loss else self._loss
            self._update(trainer)
        elif self._is_enabled and metrics:
            shown = [f"{key} {value}" for key, value in metrics.items() if self._has_validated or key[:4] != "val_"]
            line = "  ".join([f"epoch {trainer.current_epoch}{_total_epochs(trainer)}", *shown])
            log.info(line) if log.isEnabledFor(logging.INFO) else print(line)  # a notebook has no log handler
        self._has_validated = False

    def _show_batch(self, trainer: Trainer, task: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._bar is None or batch_idx % self.refresh_rate or time.monotonic() < self._next_update:
            return
        if outputs:
            self._loss = f"loss {float(outputs['loss']):.4f}"
        self._update(trainer)

    def _update(self, trainer: Trainer) -> None:
        assert self._bar is not None
        self._next_update = time.monotonic() + INTERVAL
        (run,) = self._bar.tasks
        epoch = f"{trainer.fit_loop.epoch_progress.total.ready}{_total_epochs(trainer)}"
        parts = [self._loss, *(f"{key} {value}" for key, value in self._metrics.items() if not key.endswith("loss"))]
        parts.append(f"lr {trainer.optimizers[0].param_groups[0]['lr']:.3g}")
        data: Data | None = trainer.datamodule  # type: ignore[attr-defined]  # undeclared
        if data is not None and run.speed:
            parts.append(f"{run.speed * data.batch_size * trainer.accumulate_grad_batches:,.0f} samples/s")
        parts += [f"{key} {value}" for key, value in self._metrics.items() if key.endswith("loss")]
        room = self._bar.console.width - len(f"epoch {epoch} 00:00 left  ") - BAR_WIDTH
        while len(metrics := "  ".join(filter(None, parts))) > room and parts:
            parts.pop()
        self._bar.update(run.id, completed=trainer.global_step, epoch=epoch, metrics=metrics, refresh=True)


def _total_epochs(trainer: Trainer) -> str:
    return f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
