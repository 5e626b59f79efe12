"""The pictures of docs/results.md, drawn for scripts/reproduce.py from the event files and checkpoints of its runs."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")  # Okabe and Ito's, told apart by all
Runs = Sequence[str]  # run directories of one setting, one for each seed


def curve(run: str, tag: str) -> tuple[list[int], list[float]]:
    """Steps and values of what the run logged under that tag."""
    events = _events(run).Scalars(tag)
    return [event.step for event in events], [event.value for event in events]


@cache
def _events(run: str) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    return EventAccumulator(run, size_guidance={"scalars": 0}).Reload()


def mean_and_std(curves: Sequence[Sequence[float]]) -> tuple[Any, Any]:
    """Over curves, at each epoch that all of them reach; the std has ddof 1, and is 0 for a single curve."""
    import numpy as np

    values = np.array([each[: min(map(len, curves))] for each in curves])
    return values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])


def by_epoch(runs: Runs, tag: str) -> tuple[Any, Any]:
    return mean_and_std([curve(run, tag)[1] for run in runs])


def train_accuracy(run: str) -> list[float]:
    """Accuracy on the training set after each epoch, with nothing dropped, from the run's checkpoint of each."""
    path = Path(run) / "train_accuracy.json"
    if not path.is_file():
        import torch
        from omegaconf import DictConfig, OmegaConf

        from litmlp.runs.train import construct

        cfg = OmegaConf.load(Path(run) / "config.yaml")
        assert isinstance(cfg, DictConfig)
        data, task, _ = construct(cfg, Path(run))
        data.prepare_data()
        data.setup()
        task.eval()
        scores = []
        for checkpoint in sorted(Path(run).glob("checkpoints/??.ckpt")):
            task.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
            with torch.no_grad():
                chunks = zip(data.train.x.split(5000), data.train.y.split(5000), strict=True)
                right = sum(int((task(data.transform(x)).argmax(1) == y).sum()) for x, y in chunks)
            scores.append(right / len(data.train.y))
        path.write_text(json.dumps(scores))
    return json.loads(path.read_text())


def draw_weight_decay(axes: Any, runs: dict[str, Runs]) -> None:
    for color, (decay, repeats) in zip(COLORS, runs.items(), strict=False):
        norm = by_epoch(repeats, "norm/all")[0][-1]
        for stage, tag, style in (("train", "train_loss", "--"), ("test", "val_loss", "-")):
            loss, _ = by_epoch(repeats, tag)
            label = f"decay {float(decay):g}, {stage}"
            axes.plot(range(1, len(loss) + 1), loss, style, color=color, label=f"{label} (final L2 norm {norm:.2g})")
    axes.set(yscale="log", xlabel="epoch", ylabel="mean squared error")
    axes.legend(frameon=False)


def draw_dropout(axes: Any, runs: dict[str, Runs]) -> None:
    for color, (label, repeats) in zip(COLORS, runs.items(), strict=False):
        train, _ = mean_and_std([train_accuracy(run) for run in repeats])
        test, _ = by_epoch(repeats, "val_acc")  # the test set stands where a validation set would
        epochs = range(1, len(test) + 1)
        axes[0].plot(epochs, 100 * train, "--", color=color, label=f"{label}, train")
        axes[0].plot(epochs, 100 * test, color=color, label=f"{label}, test")
        axes[1].plot(epochs, 100 * (train - test), color=color, label=label)
    axes[1].axhline(0, color="0.7", linewidth=0.8, zorder=0)
    for each, unit in zip(axes, ("accuracy (%)", "train minus test accuracy (percentage points)"), strict=True):
        each.set(xlabel="epoch", ylabel=unit)
        each.legend(frameon=False)


def draw_schedules(axes: Any, runs: dict[str, Runs]) -> None:
    for each in axes.flat[len(runs) :]:
        each.remove()
    for i, (each, (name, repeats)) in enumerate(zip(axes.flat, runs.items(), strict=False)):
        steps, rates = curve(repeats[0], "lr/decay")
        each.plot(steps, rates, color=COLORS[0])
        each.set_title(name, fontsize=11)
        each.set_ylim(0, 0.056)
        each.set_ylabel("learning rate" if i % axes.shape[1] == 0 else "")
        each.set_xlabel("step" if i >= len(runs) - axes.shape[1] else "")


def draw_optimizers(axes: Any, runs: dict[str, Runs]) -> None:
    for color, (name, repeats) in zip(COLORS, runs.items(), strict=False):
        loss, std = by_epoch(repeats, "val_loss")
        epochs = range(1, len(loss) + 1)
        axes.plot(epochs, loss, color=color, label=name)
        axes.fill_between(epochs, loss - std, loss + std, color=color, alpha=0.15, linewidth=0)
    axes.set(yscale="log", xlabel="epoch", ylabel="validation loss (cross-entropy)")
    axes.legend(frameon=False)


PICTURES: dict[str, tuple[Any, dict[str, Any]]] = {  # name -> what draws it, and the shape of its axes
    "weight_decay": (draw_weight_decay, {"figsize": (9, 4.5)}),
    "dropout": (draw_dropout, {"figsize": (9, 4.2), "ncols": 2}),
    "schedules": (draw_schedules, {"figsize": (9, 7.5), "nrows": 4, "ncols": 3, "sharex": True, "sharey": True}),
    "optimizers": (draw_optimizers, {"figsize": (9, 4.5)}),
}


def draw(name: str, runs: dict[str, Runs], folder: Path) -> None:
    """Write `folder`/`name`.png, 900 pixels wide: `runs` by the name that each setting has in the picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    plt.rcParams |= {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8}
    fill, shape = PICTURES[name]
    figure, axes = plt.subplots(layout="constrained", **shape)
    fill(axes, runs)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=100)
    plt.close(figure)
