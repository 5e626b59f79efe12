"""Measure what several processes are worth on this machine: python dev/benchmark_processes.py [--quick]

Three questions, each answered by commands that a user would type, in turn, several times: how much faster two
processes train than one, how much faster joblib's jobs side by side are than one after the other, and what starting
the processes of a run costs.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmark import write_images

TRAIN = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
QUIET = ["test=false", "callbacks=no_validation", "monitor=train_loss", "data.val_size=0", "trainer.accelerator=cpu"]
WIDE = ["data=mnist", "model.hidden=[1024,1024]"]
NUM_IMAGES = 30_000  # an epoch's, of WIDE
TWO = ["trainer=ddp", "trainer.devices=2"]
JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
SMALL = ["-m", "seed=range(8)", "model.hidden=[64]", "data.batch_size=16", "trainer.max_epochs=80"]


def seconds(folder: Path, *args: str, threads: int | None = None) -> float:
    """Wall time of a command."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    environment |= {"DATA_ROOT": str(folder)} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    start = time.perf_counter()
    subprocess.run([sys.executable, TRAIN, *QUIET, *args], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def epoch(folder: Path, batch_size: int, *args: str, threads: int | None = None) -> float:
    """Seconds per epoch, by runs of one and of four, so that what a run costs besides drops out."""
    batches = [f"data.batch_size={batch_size}", f"trainer.limit_train_batches={NUM_IMAGES // batch_size}"]
    lengths = [seconds(folder, *WIDE, *batches, *args, f"trainer.max_epochs={n}", threads=threads) for n in (1, 4)]
    return (lengths[1] - lengths[0]) / 3


def measure(name: str, repeats: int, **candidates: Callable[[], float]) -> dict[str, list[float]]:
    """Call the candidates in turn; print median and spread of each, and what the first is against the others."""
    times: dict[str, list[float]] = {key: [] for key in candidates}
    for _ in range(repeats):
        for key, run in candidates.items():
            times[key].append(run())
    print(name)
    first = next(iter(times))
    for key, values in times.items():
        ratios = [other / own for other, own in zip(values, times[first], strict=True)]
        against = "" if key == first else f"   {first} is {statistics.median(ratios):.2f} times as fast"
        spread = f"[{min(values):.2f}-{max(values):.2f}]"
        print(f"  {key.replace('_', ' '):<28}{statistics.median(values):>7.2f} s {spread}{against}")
    return times


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--json", type=Path, help="write all times to this file")
    args = parser.parse_args()
    repeats = 1 if args.quick else args.repeats
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}; median [min-max] of {repeats}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        results = {
            **{
                f"epoch, batch {size}": measure(
                    f"an epoch of {NUM_IMAGES:,} images, 784-1024-1024-10, global batch {size}",
                    repeats,
                    two_processes=partial(epoch, folder, size, *TWO),
                    one_process_of_one_thread=partial(epoch, folder, size, threads=1),
                    one_process_of_two_threads=partial(epoch, folder, size, threads=2),
                )
                for size in (500, 2000)
            },
            "sweep": measure(
                "a sweep of 8 small jobs",
                repeats,
                joblib_with_2_workers=partial(seconds, folder, *SMALL, *JOBLIB),
                one_after_the_other=partial(seconds, folder, *SMALL),
            ),
            "start": measure(
                "a whole run of one epoch of the digits",
                repeats,
                two_processes=partial(seconds, folder, *TWO, "trainer.max_epochs=1"),
                one_process=partial(seconds, folder, "trainer.max_epochs=1"),
            ),
        }
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
