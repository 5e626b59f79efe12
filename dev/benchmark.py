"""Measure what training costs here beside plain loops and other libraries: python dev/benchmark.py [--quick]

Everything trains 784-200-200-10 with LeakyReLU by SGD with momentum on the same 55,000 images of random pixels. Ours is
the default run of scripts/train.py: all default callbacks, TensorBoard, images as bytes, normalised per batch. What is
compared runs in turn, in one process; ratios are of neighbours in time, and stand as median [smallest, largest].
Keras, JAX and the profile of a step are left out by --quick, the former also where they are not installed
(uv sync --group benchmark).
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import benchmark_peers as peers
import numpy as np
import torch
from benchmark_page import spread
from hydra import compose, initialize_config_dir
from lightning import Callback
from torch import Tensor, nn

from litmlp.models.mlp import MLP
from runwright.training.build import construct

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "dev")}  # of processes that import from this folder
NUM_TRAIN, NUM_VAL, NUM_TEST = 55_000, 5_000, 10_000
Seconds = dict[str, list[float]]  # of each who ran, in turn


class Clock(Callback):
    """When training, its epochs and their validation began and ended."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def _note(self, hook: str) -> None:
        self.times.setdefault(hook, []).append(time.perf_counter())

    def on_train_start(self, *args: Any) -> None:
        self._note("start")

    def on_train_epoch_start(self, *args: Any) -> None:
        self._note("epoch")

    def on_validation_start(self, *args: Any) -> None:
        self._note("validation")

    def on_train_end(self, *args: Any) -> None:
        self._note("end")

    def on_test_start(self, *args: Any) -> None:
        self._note("test")

    def on_test_end(self, *args: Any) -> None:
        self._note("tested")

    def between(self, first: str, second: str) -> float:
        return self.times[second][-1] - self.times[first][-1]


def ours(root: Path, batch_size: int, *overrides: str, test: bool = False) -> Clock:
    """The default run on the images below root, as scripts/train.py constructs it."""
    settings = [
        *("data=mnist", "model=mnist", "optimizer=sgd_momentum", f"optimizer.lr={peers.LR}"),
        *(f"data.root={root}", f"data.batch_size={batch_size}", f"data.val_size={NUM_VAL}"),
        *("trainer.accelerator=cpu", "trainer.max_epochs=1", *overrides),
    ]
    clock = Clock()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"), tempfile.TemporaryDirectory() as run_dir:
        data, task, trainer = construct(compose("train", settings), Path(run_dir))
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        (trainer.test if test else trainer.fit)(task, datamodule=data)
    return clock


def ours_epoch(root: Path, batch_size: int, *overrides: str) -> float:
    return ours(root, batch_size, *overrides).between("epoch", "validation")


def in_turn(repeats: int, who: Mapping[str, Callable[[], float]]) -> Seconds:
    seconds: Seconds = {name: [] for name in who}
    for _ in range(repeats):
        for name, run in who.items():
            seconds[name].append(run())
    return seconds


def training(root: Path, x: Tensor, y: Tensor, args: Namespace) -> dict[str, Seconds]:
    """Seconds for an epoch, by batch size and who: first the loops over torch alone, then with other libraries' threads
    in the process."""
    found: dict[str, Seconds] = {}
    for batch_size in args.batch_sizes:
        who: dict[str, Callable[[], float]] = {
            "ours": partial(ours_epoch, root, batch_size),
            "plain loop": peers.plain(x, y, batch_size),
            "plain loop, fused": peers.fused(x, y, batch_size),
        }
        found[f"{batch_size}"] = in_turn(args.repeats, who)
    for batch_size in [] if args.quick else args.batch_sizes:
        others: dict[str, Callable[[], float]] = {"ours": partial(ours_epoch, root, batch_size)}
        if batch_size == 200:
            others["scikit-learn"] = peers.sklearn(x, y, batch_size)
            others["usual pipeline"] = peers.usual(root, batch_size, 50, root / "usual")
        if find_spec("jax"):
            if find_spec("keras"):
                others["Keras on JAX"] = peers.keras(x, y, batch_size)
            others["jax.lax.scan"] = peers.jax_scan(x, y, batch_size)
        found[f"{batch_size}, beside other libraries"] = in_turn(args.repeats, others)
    return found


def two_epochs(root: Path, x: Tensor, y: Tensor, repeats: int) -> Seconds:
    """Seconds for two epochs at batch 200, each with its validation, checkpoints and logs."""
    x_val, y_val = x[:NUM_VAL], y[:NUM_VAL]

    def plain() -> float:
        model, loss_of = MLP((1, 28, 28), 10, activation="leaky_relu"), nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(model.parameters(), peers.LR, peers.MOMENTUM)
        start = time.perf_counter()
        for _ in range(2):
            model.train()
            for batch in torch.randperm(len(y)).split(200):
                optimizer.zero_grad()
                loss_of(model(x[batch]), y[batch]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                scores = [
                    evaluate(model, loss_of, *part) for part in zip(x_val.split(2000), y_val.split(2000), strict=True)
                ]
            torch.tensor(scores).sum(0).tolist()
        return time.perf_counter() - start

    ours_too = lambda: ours(root, 200, "trainer.max_epochs=2").between("start", "end")  # noqa: E731
    return in_turn(repeats, {"ours": ours_too, "plain loop": plain})


def evaluate(model: nn.Module, loss_of: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    logits = model(x)
    return loss_of(logits, y).item() * len(y), (logits.argmax(1) == y).sum().item()


def evaluation(root: Path, x: Tensor, y: Tensor, repeats: int) -> Seconds:
    """Seconds to score 10,000 images."""
    model, loss_of = MLP((1, 28, 28), 10, activation="leaky_relu").eval(), nn.CrossEntropyLoss()

    def plain() -> float:
        start = time.perf_counter()
        with torch.no_grad():
            for part in zip(x[:NUM_TEST].split(2000), y[:NUM_TEST].split(2000), strict=True):
                evaluate(model, loss_of, *part)
        return time.perf_counter() - start

    ours_too = lambda: ours(root, 200, "~callbacks.confusion", test=True).between("test", "tested")  # noqa: E731
    who = {"ours": ours_too, "plain": plain}
    in_turn(1, who)  # the first time costs more than the next
    return in_turn(repeats, who)


def answers(repeats: int) -> Seconds:
    """Seconds until the command line answers, beside a bare Hydra application."""
    bare = "import hydra; hydra.main(version_base='1.3', config_path=None)(lambda cfg: None)()"
    python, script = [sys.executable], [sys.executable, str(ROOT / "scripts" / "train.py")]
    commands = {
        "bare Hydra --help": [*python, "-c", bare, "--help"],
        "--help": [*script, "--help"],
        "--cfg job": [*script, "--cfg", "job"],
        "a typo": [*script, "optimizer=sgdm"],
        "import torch, lightning": [*python, "-c", "import torch, lightning"],
        "first step": [*script, "+callbacks.leave._target_=benchmark_leave.Leave", "hydra.run.dir=run${now:%f}"],
    }
    return in_turn(repeats, {name: partial(spawn, command) for name, command in commands.items()})


def spawn(command: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, capture_output=True, env=ENVIRONMENT)
        return time.perf_counter() - start


def further_jobs(repeats: int) -> Seconds:
    """Seconds for each further job of a sweep over the digits, beyond the first: one step, validation and test."""
    one_step = ("trainer.max_epochs=1", "trainer.limit_train_batches=1")
    script = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *one_step]

    def beyond_first() -> float:
        return (spawn([*script, "seed=range(17)"]) - spawn([*script, "seed=range(1)"])) / 16

    return in_turn(repeats, {"a further job": beyond_first})


PEAK = "print(*(int(line.split()[1]) / 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))"


def memory(root: Path) -> dict[str, float]:
    """Peak resident MB of a process that trains one epoch."""
    peer, own = "import benchmark_peers as peers", "import benchmark, pathlib"
    codes = {
        "ours": f"{own}; benchmark.ours_epoch(pathlib.Path({str(root)!r}), 200)",
        "plain loop": f"{peer}; x, y = peers.torch.load({str(root / 'images.pt')!r}); peers.plain(x, y, 200)()",
        "imports of ours": own,
        "imports of the plain loop": peer,
    }
    found = {}
    for name, code in codes.items():
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\n{PEAK}"], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        found[name] = float(done.stdout.split()[-1])
    return found


def causes(root: Path, x: Tensor, y: Tensor, repeats: int) -> dict[str, Seconds]:
    """Seconds for an epoch as parts of a run are taken away."""
    bare = ("logger=none", "callbacks=[]", "+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false")
    who = {
        "plain loop, fused": peers.fused(x, y, 64),
        "ours without callbacks and logger": lambda: ours_epoch(root, 64, *bare),
        "ours without logger": lambda: ours_epoch(root, 64, "logger=none"),
        "ours": lambda: ours_epoch(root, 64),
        "ours on Lightning's own step": lambda: ours_epoch(root, 64, "step_loop=lightning"),
        "plain loop": peers.plain(x, y, 64),
    }
    return {"64": in_turn(repeats, who)}


def growth(root: Path, x: Tensor, y: Tensor, repeats: int) -> dict[str, dict[str, Seconds]]:
    """Seconds of a step, by what grows, its value and who; at batch 64 but where that is what grows."""
    num_steps = 150
    axes: dict[str, dict[int, tuple[int, list[int], int, str]]] = {  # batch size, hidden, samples, override
        "batch size": {n: (n, [200, 200], NUM_TRAIN, "") for n in (16, 64, 256, 1024)},
        "units in each of 2 layers": {n: (64, [n, n], NUM_TRAIN, "") for n in (50, 200, 800)},
        "layers of 200 units": {n: (64, [200] * n, NUM_TRAIN, "") for n in (1, 2, 4, 8)},
        "training samples": {n: (64, [200, 200], n, "") for n in (9_600, 25_000, 55_000)},
        "logged points in 100 steps": {
            n: (64, [200, 200], NUM_TRAIN, f"trainer.log_every_n_steps={100 // n}") for n in (1, 5, 20, 100)
        },
    }
    found: dict[str, dict[str, Seconds]] = {}
    for axis, values in axes.items():
        for value, (batch_size, hidden, size, override) in values.items():
            steps = min(num_steps, size // batch_size)
            overrides = [f"model.hidden={hidden}".replace(" ", ""), f"data.val_size={NUM_TRAIN + NUM_VAL - size}"]
            overrides += [f"trainer.limit_train_batches={steps}", "trainer.limit_val_batches=1", *override.split()]
            few = slice(steps * batch_size)
            who: dict[str, Callable[[], float]] = {
                "ours": partial(ours_epoch, root, batch_size, *overrides),
                "plain loop": peers.plain(x[few], y[few], batch_size, hidden),
            }
            seconds = in_turn(repeats, who)
            by_value = found.setdefault(axis, {})
            by_value[str(value)] = {name: [each / steps for each in times] for name, times in seconds.items()}
    return found


def write_images(folder: Path) -> tuple[Tensor, Tensor]:
    """MNIST's four files with random pixels; returns the training images, normalised, and labels."""
    random = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, size in {"train": NUM_TRAIN + NUM_VAL, "t10k": NUM_TEST}.items():
        images = random.integers(0, 256, (size, 28, 28), np.uint8)
        labels = random.integers(0, 10, size, np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
        if part == "train":
            x = torch.from_numpy(images[:NUM_TRAIN]).unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)
            y = torch.from_numpy(labels[:NUM_TRAIN]).long()
    torch.save((x, y), folder / "images.pt")
    return x, y


def report(found: dict[str, Any]) -> Iterator[str]:
    """The table: each row's figure, and its ratio where it has one."""
    yield f"{found['machine']}; {found['date']}; {found['command']}"
    for size, seconds in found["training"].items():
        for name, values in seconds.items():
            rates = [NUM_TRAIN / value for value in values]
            ratios = [other / own for other, own in zip(values, seconds["ours"], strict=True)]
            ratio = "" if name == "ours" else f"  ours / it {spread(ratios)}"
            yield f"batch {size}  {name:<18}{spread(rates, 0):>28} images/s{ratio}"
    for row in ("two_epochs", "evaluation"):
        own, other = found[row].values()
        yield f"{row}: ours {spread(own, 3)} s, plain {spread(other, 3)} s, ours / plain in time " + spread(
            [a / b for a, b in zip(own, other, strict=True)]
        )
    for row in ("answers", "further_jobs"):
        for name, values in found[row].items():
            yield f"{name:<24}{spread(values)} s"
    yield "peak MB: " + ", ".join(f"{name} {value:,.0f}" for name, value in found["memory"].items())


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 200, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat, batch 1000 alone, without what takes minutes")
    parser.add_argument("--json", type=Path, help="write all measurements to this file")
    args = parser.parse_args()
    if args.quick:
        args.batch_sizes, args.repeats = [1000], 1
    found: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores ({platform.processor() or platform.machine()}), "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}",
        "num_train": NUM_TRAIN,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "dev/benchmark.py", *sys.argv[1:]]),
    }
    few = min(3, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        x, y = write_images(root)
        found["training"] = training(root, x, y, args)
        found["two_epochs"] = two_epochs(root, x, y, args.repeats)
        found["evaluation"] = evaluation(root, x, y, args.repeats)
        found["memory"] = memory(root)
        if not args.quick:
            found["causes"] = causes(root, x, y, args.repeats)
            found["growth"] = growth(root, x, y, few)
    found["answers"] = answers(few)
    found["further_jobs"] = further_jobs(1)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(report(found)))


if __name__ == "__main__":
    main()
