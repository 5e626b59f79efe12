"""Training speed, and a profile of where the time goes."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.profiler import ProfilerActivity, profile, schedule

from runwright.contracts import Data
from runwright.loop.epoch_end import epoch_end_step
from runwright.rundir.files import TRACE

log = logging.getLogger(__name__)


class Speed(Callback):
    """Logs `speed/samples_per_s` and `speed/ms_per_step` of each epoch's training, without validation.

    It reads the clock only where an epoch or a validation begins or ends, so it adds nothing to a step. A smaller last
    batch counts as a full one where the data module does not know its number of samples.
    """

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        self.on_train_epoch_start(trainer)  # Lightning does not call it when resuming within an epoch

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        self._seconds, self._since, self._last_batch = 0.0, time.perf_counter(), trainer.fit_loop.total_batch_idx

    def on_validation_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._seconds += time.perf_counter() - self._since

    def on_validation_end(self, *args: Any) -> None:
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: Data | None = trainer.datamodule  # type: ignore[attr-defined]
        seconds = self._seconds + time.perf_counter() - self._since
        num_steps = trainer.fit_loop.total_batch_idx - self._last_batch
        if data is None or num_steps == 0 or seconds <= 0:  # seconds <= 0: a clock that is too coarse
            return
        num_samples = num_steps * data.batch_size
        if data.num_train_samples is not None:
            num_samples = min(num_samples, data.num_train_samples)
        speeds = {"speed/samples_per_s": num_samples / seconds, "speed/ms_per_step": 1000 * seconds / num_steps}
        for logger in trainer.loggers:
            logger.log_metrics(speeds, step=epoch_end_step(trainer))


class Profile(Callback):
    """Profiles some steps with torch's profiler, prints the ten most expensive items, and writes a trace.

    `trace.json` in the run directory opens in ui.perfetto.dev and chrome://tracing. `ProfilerStep*` is the part of a
    step spent outside torch's operations, in Python.

    Args:
        num_steps: steps to record, after as many for warm-up. Validation between steps counts as part of a step.
    """

    def __init__(self, num_steps: int = 10) -> None:
        if not isinstance(num_steps, int) or num_steps < 1:
            raise ValueError(f"num_steps must be a whole number of at least 1, got {num_steps}")
        self.num_steps = num_steps

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        stages = schedule(wait=0, warmup=self.num_steps, active=self.num_steps, repeat=1)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._folder = Path(trainer.default_root_dir)
        self._profile = profile(activities=activities, schedule=stages, on_trace_ready=self._report)
        self._profile.start()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step <= 2 * self.num_steps:
            self._profile.step()

    def on_train_end(self, trainer: Trainer, *args: Any) -> None:
        self._profile.stop()
        if trainer.global_step < 2 * self.num_steps:
            log.warning(
                "nothing was profiled: profiling takes %d steps, this run has made %d",
                2 * self.num_steps,
                trainer.global_step,
            )

    @rank_zero_only
    def _report(self, recorded: profile) -> None:
        path = self._folder / TRACE
        recorded.export_chrome_trace(str(path))
        costs: list[tuple[float, float, str]] = []
        for item in recorded.key_averages():
            own = item.self_cpu_time_total + getattr(item, "self_device_time_total", 0)
            costs.append((own / self.num_steps / 1000, item.count / self.num_steps, item.key))
        lines = [f"{'ms':>8}{'calls':>7}  per step; the most expensive of {sum(ms for ms, *_ in costs):.3f} ms"]
        lines += [f"{ms:8.3f}{calls:7.1f}  {name}" for ms, calls, name in sorted(costs, reverse=True)[:10]]
        log.info("\n".join([*lines, f"trace: {path}"]))
