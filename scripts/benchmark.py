"""Measure training speed beside a plain PyTorch loop: python scripts/benchmark.py [--quick]

Both train 784-200-200-10 with LeakyReLU by SGD with momentum on the same 55,000 images of random pixels, in turn, in
one process. Ours is the default run: all default callbacks, TensorBoard, the images as bytes, normalised per batch. The
plain loop gathers from images normalised beforehand, and does nothing else.
"""

import gzip
import statistics
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback
from torch import nn

from litmlp.models.mlp import MLP
from litmlp.runs.train import construct

CONF = str(Path(__file__).resolve().parents[1] / "conf")
NUM_TRAIN, NUM_VAL = 55_000, 5_000


class EpochTimer(Callback):
    """Seconds from the start of an epoch to its last update, validation left out."""

    seconds = 0.0

    def on_train_epoch_start(self, *args: object) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *args: object) -> None:
        self.seconds = time.perf_counter() - self._start


def ours(root: Path, batch_size: int) -> float:
    """Seconds for an epoch of `scripts/train.py data=mnist model=mnist`."""
    overrides = [
        "data=mnist",
        "model=mnist",
        "optimizer=sgd_momentum",
        f"data.root={root}",
        f"data.batch_size={batch_size}",
        f"data.val_size={NUM_VAL}",
        "optimizer.lr=0.01",
        "trainer.accelerator=cpu",
        "trainer.max_epochs=1",
        "callbacks.progress_bar.refresh_rate=20",
    ]
    with initialize_config_dir(CONF, version_base="1.3"), tempfile.TemporaryDirectory() as run_dir:
        data, task, trainer = construct(compose("train", overrides), Path(run_dir))
        timer = EpochTimer()
        trainer.callbacks.append(timer)  # type: ignore[attr-defined]
        trainer.fit(task, datamodule=data)
    return timer.seconds


def plain(x: torch.Tensor, y: torch.Tensor, batch_size: int, fused: bool) -> float:
    """Seconds for an epoch of a plain loop over x, (N, 1, 28, 28) float32."""
    torch.manual_seed(0)
    model = MLP((1, 28, 28), 10, activation="leaky_relu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=fused)
    loss_of = nn.CrossEntropyLoss()
    start = time.perf_counter()
    for batch in torch.randperm(len(y)).split(batch_size):
        optimizer.zero_grad()
        loss = loss_of(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start


def write_images(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's four files with random pixels; returns the training images, normalised, and labels."""
    random = np.random.default_rng(0)
    parts = {"train": NUM_TRAIN + NUM_VAL, "t10k": 1_000}
    for part, size in parts.items():
        images = random.integers(0, 256, (size, 28, 28), np.uint8)
        labels = random.integers(0, 10, size, np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            with gzip.open(folder / f"{part}-{name}-ubyte.gz", "wb", compresslevel=0) as file:
                file.write(header + array.tobytes())
        if part == "train":
            x = torch.from_numpy(images[:NUM_TRAIN]).unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)
            y = torch.from_numpy(labels[:NUM_TRAIN]).long()
    return x, y


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 200, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat, batch 1000 alone")
    args = parser.parse_args()
    batch_sizes, repeats = ([1000], 1) if args.quick else (args.batch_sizes, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        x, y = write_images(Path(folder))
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; images/s, median [min-max] of {repeats}")
        for batch_size in batch_sizes:
            seconds: dict[str, list[float]] = {"ours": [], "plain": [], "plain, fused": []}
            for _ in range(repeats):
                seconds["plain"].append(plain(x, y, batch_size, fused=False))
                seconds["ours"].append(ours(Path(folder), batch_size))
                seconds["plain, fused"].append(plain(x, y, batch_size, fused=True))
            for name, values in seconds.items():
                rates = sorted(NUM_TRAIN / value for value in values)
                ratios = [other / mine for other, mine in zip(values, seconds["ours"], strict=True)]
                versus = "" if name == "ours" else f"   ours is {statistics.median(ratios):.2f} of it"
                print(
                    f"batch {batch_size:>4}  {name:<13}{statistics.median(rates):>8,.0f} "
                    f"[{rates[0]:,.0f}-{rates[-1]:,.0f}]{versus}"
                )


if __name__ == "__main__":
    main()
