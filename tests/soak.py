"""Whether many jobs leave nothing behind in their process, and many processes are not in each other's way.

python tests/soak.py sweep [JOBS [PLOT.png]]
python tests/soak.py crowd [PROCESSES]
"""

import os
import sys
import time
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from hydra.experimental.callback import Callback
from kill import attempt

SMALL = [
    *("data=iris", "data.val_size=0.2", "model.hidden=[8]", "trainer.max_epochs=1", "trainer.limit_train_batches=5"),
    "trainer.accelerator=cpu",
]
HELD = ("memory, MB", "file descriptors", "threads")


class Measure(Callback):
    """After each job of a sweep, appends what its process holds to a file."""

    def on_job_end(self, *args: Any, **kwargs: Any) -> None:
        process = psutil.Process()
        with open("measured", "a") as file:
            print(process.memory_info().rss / 1e6, process.num_fds(), process.num_threads(), file=file)


def sweep(folder: Path, num_jobs: int = 200, plot: str | None = None) -> bool:
    """Whether files and threads stay as many, and memory grows by less than 0.05 MB a job."""
    measure = "+hydra.callbacks.measure._target_=soak.Measure"
    child = attempt(folder, ["-m", f"seed=range({num_jobs})", *SMALL, measure])
    assert os.waitpid(child, 0)[1] == 0, (folder / "output.txt").read_text()[-3000:]
    rows = [[float(x) for x in line.split()] for line in (folder / "measured").read_text().splitlines()]
    assert len(rows) == num_jobs
    quarter = num_jobs // 4
    if plot:
        draw(rows, plot)
    is_flat = True
    for name, values in zip(HELD, zip(*rows, strict=True), strict=True):
        before, after = mean(values[quarter : 2 * quarter]), mean(values[-quarter:])
        print(f"{name}: {values[0]:g} after the first job, {before:g} in the second quarter, {after:g} in the last")
        is_flat &= after <= before + (0.1 * quarter if name == HELD[0] else 0)  # the two are half the jobs apart
    return is_flat


def draw(rows: list[list[float]], plot: str) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(HELD), sharex=True, figsize=(7, 5), layout="constrained")
    for axis, name, values in zip(axes, HELD, zip(*rows, strict=True), strict=True):
        axis.plot(range(1, len(rows) + 1), values)
        axis.set_ylabel(name)
        axis.set_ylim(0, 1.15 * max(values))
    axes[-1].set_xlabel("jobs of the sweep, in one process")
    figure.savefig(plot, dpi=110)


def crowd(folder: Path, num_processes: int = 50) -> bool:
    """Whether of runs begun at one instant each has its directory, and of as many into one directory one has it."""
    is_right = True
    for args, expected in ((SMALL, {0: num_processes}), ([*SMALL, "hydra.run.dir=one"], {0: 1, 2: num_processes - 1})):
        instant = time.time() + 2
        wait = partial(_wait_until, instant)
        children = [attempt(folder, args, wait) for _ in range(num_processes)]
        ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        counts = {status: ends.count(status) for status in sorted(set(ends))}
        print(f"{' '.join(args[len(SMALL) :]) or 'each its own directory'}: exit statuses {counts}")
        is_right &= counts == expected
    runs = list(folder.rglob("metrics.json"))
    print(f"{len(runs)} runs finished")
    return is_right and len(runs) == num_processes + 1


def _wait_until(instant: float) -> None:
    time.sleep(max(0, instant - time.time()))


if __name__ == "__main__":
    sys.modules["soak"] = sys.modules["__main__"]
    what, *given = sys.argv[1:]
    with TemporaryDirectory() as name:
        options = [int(given[0]), *(str(Path(each).resolve()) for each in given[1:])] if given else []
        sys.exit(not {"sweep": sweep, "crowd": crowd}[what](Path(name), *options))
