"""How fast a run trains, and where its time goes."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.profiler import ProfilerActivity, profile, schedule

from runwright.contracts import Data
from runwright.rundir.files import TRACE

log = logging.getLogger(__name__)


class Speed(Callback):
    """Logs `speed/samples_per_s` and `speed/ms_per_step` of each epoch's training, validation left out.

    It looks at the clock where an epoch and its validation begin and end, so that no step pays for it. A smaller last
    batch counts as a whole one where the data do not know how many samples they have.
    """

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        self.on_train_epoch_start(trainer)  # which is not called where a run goes on within an epoch

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
        if data is None or num_steps == 0 or seconds <= 0:  # of a clock that stands still, or is set back
            return
        num_samples = num_steps * data.batch_size
        if data.num_train_samples is not None:
            num_samples = min(num_samples, data.num_train_samples)
        speeds = {"speed/samples_per_s": num_samples / seconds, "speed/ms_per_step": 1000 * seconds / num_steps}
        for logger in trainer.loggers:
            logger.log_metrics(speeds, step=trainer.global_step - trainer.is_last_batch)  # see `LastCheckpoint`


class Profile(Callback):
    """Records some steps with torch's profiler: the ten costliest items are printed, the trace is written.

    `trace.json`, in the run's directory, opens in ui.perfetto.dev and in chrome://tracing. `ProfilerStep*` stands for
    what a step spends outside torch's operations: Python.

    Args:
        num_steps: how many to record, after as many that warm up. Validation between two steps counts as of a step.
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
                "nothing was profiled: that takes %d steps, this run has made %d",
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
        lines = [f"{'ms':>8}{'calls':>7}  of a step, the costliest of {sum(ms for ms, *_ in costs):.3f} ms"]
        lines += [f"{ms:8.3f}{calls:7.1f}  {name}" for ms, calls, name in sorted(costs, reverse=True)[:10]]
        log.info("\n".join([*lines, f"trace: {path}"]))
