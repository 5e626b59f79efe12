"""What docs/results.md says and shows of the runs that dev/reproduce.py made."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from runwright.rundir.curves import Curves, read_curves

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")  # Okabe and Ito's, told apart by all
DROPOUT, OVERFIT = "fashion_dropout", "fashion_overfit"
WITHOUT = " without dropout"  # ends the names of what either is compared with
Runs = Sequence[str]  # run directories of one setting, one for each seed


def metrics_of(run: str) -> dict[str, Any]:
    return json.loads((Path(run) / "metrics.json").read_text())


def score(mean: float, std: float | None) -> str:
    shown = [f"{number:.4f}" if number == 0 or abs(number) >= 1e-3 else f"{number:.1e}" for number in (mean, std or 0)]
    return shown[0] if std is None else f"{shown[0]} ({shown[1]})"


def findings(runs: Mapping[str, Runs]) -> Iterator[str]:
    """Each claim of the notes with what was measured: it says that the means rise in the order of the names."""

    def final(key: str) -> Callable[[str], float]:
        return lambda run: (metrics_of(run)["fit"] | metrics_of(run)["test"])[key]

    def best(run: str) -> float:
        return metrics_of(run)["best"]

    def loss_gap(run: str) -> float:
        return final("test_loss")(run) - final("train_loss")(run)

    def undropped_accuracy_gap(run: str) -> float:
        return train_scores(run)["acc"][-1] - final("test_acc")(run)

    def undropped_loss_gap(run: str) -> float:
        return final("test_loss")(run) - train_scores(run)["loss"][-1]

    claims: list[tuple[str, str, Callable[[str], float], list[str]]] = []
    for data in ("", " on Fashion-MNIST"):
        sgd, momentum, step, plateau = (f"mnist_{name}{data}" for name in ("sgd", "momentum", "step", "plateau"))
        by_batch = "Decay counted in batches costs accuracy, the plateau the most"
        claims.append(("Momentum beats plain SGD", "Test accuracy", final("test_acc"), [sgd, momentum]))
        claims.append((by_batch, "Test accuracy", final("test_acc"), [plateau, step, momentum]))
    decay = ["weight_decay: 3.0", "weight_decay: 0.0"]
    gap_shrinks = "Weight decay 3 shrinks the gap between train and test loss"
    claims.append(("Weight decay 3 shrinks the norm", "L2 norm", final("norm/all"), decay))
    claims.append(("Weight decay 3 lowers the test loss", "Test loss", final("test_loss"), decay))
    claims.append((gap_shrinks, "Test minus train loss", loss_gap, decay))
    for name in (DROPOUT, OVERFIT):
        pair = [name, name + WITHOUT]
        narrows = "Dropout narrows the gap between train and test"
        claims.append((f"{narrows} accuracy", "Train minus test accuracy", undropped_accuracy_gap, pair))
        claims.append((f"{narrows} loss", "Test minus train loss", undropped_loss_gap, pair))
        claims.append(("Dropout raises the test accuracy", "Test accuracy", final("test_acc"), pair[::-1]))
    for schedule in ("plateau", "step", "exponential", "inverse_time"):
        pair = [f"annealing: {schedule}", "annealing: constant"]
        claims.append((f"Annealing ({schedule}) beats a constant rate", "Validation loss", best, pair))
    pair = ["optimizers: sgd_momentum", "optimizers: sgd"]
    claims.append(("Momentum beats plain SGD on the digits", "Validation loss", best, pair))
    sizes = [f"batch_size: {size}" for size in (8, 32, 128, 512)]
    claims.append(("At the same rate, smaller batches learn more in 20 epochs", "Validation loss", best, sizes))
    for claim, what, measure, names in claims:
        if all(name in runs for name in names):
            values = [[measure(run) for run in runs[name]] for name in names]
            means, stds = [fmean(each) for each in values], [stdev(each) if len(each) > 1 else None for each in values]
            numbers = ", ".join(
                f"{name} {score(mean, std)}" for name, mean, std in zip(names, means, stds, strict=True)
            )
            yield f"- {claim}: **{verdict(means, [std or 0 for std in stds])}**. {what}: {numbers}."
    for name in ("iris_linear_decay", "iris_exponential_decay"):
        if name in runs and max(final("test_acc")(run) for run in runs[name]) < 0.34:
            yield (
                f"- {name} ends at chance level from every seed, with the loss of guessing, ln 3: at rate 0.1 with "
                "momentum 0.9 on raw features all units of its small ReLU layers die in the first epochs."
            )


def verdict(means: Sequence[float], stds: Sequence[float]) -> str:
    """Whether the means rise, each by more than the larger of its own and its neighbour's std."""
    steps = [(means[i + 1] - means[i], max(stds[i : i + 2])) for i in range(len(means) - 1)]
    if any(rise < -std for rise, std in steps):
        return "does not hold"
    return "holds" if all(rise > std for rise, std in steps) else "inconclusive"


def curve(run: str, tag: str) -> tuple[list[int], list[float]]:
    """Steps and values of what the run logged under that tag."""
    points = _curves(run)[tag]
    return [step for step, _ in points], [value for _, value in points]


@cache
def _curves(run: str) -> Curves:
    return read_curves(Path(run))


def mean_and_std(curves: Sequence[Sequence[float]]) -> tuple[Any, Any]:
    """Over curves, at each epoch that all of them reach; the std has ddof 1, and is 0 for a single curve."""
    import numpy as np

    values = np.array([each[: min(map(len, curves))] for each in curves])
    return values.mean(0), values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])


def by_epoch(runs: Runs, tag: str) -> tuple[Any, Any]:
    return mean_and_std([curve(run, tag)[1] for run in runs])


def train_scores(run: str) -> dict[str, list[float]]:
    """`acc` and `loss` on the training set, with nothing dropped, of each checkpoint of the run in their order."""
    path = Path(run) / "train_scores.json"
    if not path.is_file():
        import torch
        from omegaconf import DictConfig, OmegaConf

        from litmlp.data.in_memory import InMemoryData
        from litmlp.tasks.supervised import SupervisedTask
        from runwright.training.build import construct

        cfg = OmegaConf.load(Path(run) / "config.yaml")
        assert isinstance(cfg, DictConfig)
        data, task, _ = construct(cfg, Path(run))
        assert isinstance(data, InMemoryData)
        assert isinstance(task, SupervisedTask)
        data.prepare_data()
        data.setup()
        assert data.train is not None
        task.eval()
        scores: dict[str, list[float]] = {"acc": [], "loss": []}
        for checkpoint in sorted(Path(run).glob("checkpoints/epoch=*.ckpt")):
            task.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
            with torch.no_grad():
                outputs = torch.cat([task(data.preprocessing()(x)) for x in data.train.x.split(5000)])
                scores["acc"].append(float((outputs.argmax(1) == data.train.y).float().mean()))
                scores["loss"].append(float(task.loss(outputs, data.train.y)))
        path.write_text(json.dumps(scores))
    return json.loads(path.read_text())


def draw_weight_decay(axes: Any, runs: Mapping[str, Runs]) -> None:
    for color, (decay, repeats) in zip(COLORS, runs.items(), strict=False):
        norm = by_epoch(repeats, "norm/all")[0][-1]
        for stage, tag, style in (("train", "train_loss", "--"), ("test", "val_loss", "-")):
            loss, _ = by_epoch(repeats, tag)
            label = f"decay {float(decay):g}, {stage}" + (
                f" (L2 norm at the end {norm:.3g})" if stage == "test" else ""
            )
            axes.plot(range(1, len(loss) + 1), loss, style, color=color, label=label)
    axes.set(yscale="log", xlabel="epoch", ylabel="mean squared error")
    axes.legend(frameon=False)


def draw_dropout(axes: Any, runs: Mapping[str, Runs]) -> None:
    for color, (label, repeats) in zip(COLORS, runs.items(), strict=False):
        num_epochs = metrics_of(repeats[0])["epochs"]
        for each, key, factor in zip(axes, ("acc", "loss"), (100, 1), strict=True):
            train, _ = mean_and_std([train_scores(run)[key] for run in repeats])
            unseen, _ = by_epoch(repeats, f"val_{key}")
            epochs = [num_epochs * (n + 1) / len(unseen) for n in range(len(unseen))]
            each.plot(epochs, factor * train, "--", color=color, label=f"{label}, train")
            each.plot(epochs, factor * unseen, color=color, label=f"{label}, unseen")
    for each, unit in zip(axes, ("accuracy (%)", "loss (cross-entropy)"), strict=True):
        each.set(xlabel="epoch", ylabel=unit)
    lines, labels = axes[0].get_legend_handles_labels()
    axes[0].figure.legend(
        lines, labels, loc="outside upper center", ncols=4, fontsize=10, columnspacing=1, frameon=False
    )


def draw_schedules(axes: Any, runs: Mapping[str, Runs]) -> None:
    for each in axes.flat[len(runs) :]:
        each.remove()
    for i, (each, (name, repeats)) in enumerate(zip(axes.flat, runs.items(), strict=False)):
        steps, rates = curve(repeats[0], "lr/decay")
        each.plot(steps, rates, color=COLORS[0])
        each.set_title(name, fontsize=11)
        each.set_ylim(0, 0.056)
        each.set_ylabel("learning rate" if i % axes.shape[1] == 0 else "")
        if i >= len(runs) - axes.shape[1]:  # nothing below
            each.set_xlabel("step")
            each.tick_params(labelbottom=True)


def draw_optimizers(axes: Any, runs: Mapping[str, Runs]) -> None:
    for color, (name, repeats) in zip(COLORS, runs.items(), strict=False):
        loss, std = by_epoch(repeats, "val_loss")
        epochs = range(1, len(loss) + 1)
        axes.plot(epochs, loss, color=color, label=name)
        axes.fill_between(epochs, loss - std, loss + std, color=color, alpha=0.15, linewidth=0)
    axes.set(yscale="log", xlabel="epoch", ylabel="validation loss (cross-entropy)")
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"], minor=False)
    axes.legend(frameon=False)


PICTURES: dict[str, tuple[Any, dict[str, Any]]] = {  # name -> what draws it, and the shape of its axes
    "weight_decay": (draw_weight_decay, {"figsize": (9, 4.5)}),
    "dropout": (draw_dropout, {"figsize": (9, 4.2), "ncols": 2}),
    "dropout_overfit": (draw_dropout, {"figsize": (9, 4.2), "ncols": 2}),
    "schedules": (draw_schedules, {"figsize": (9, 7.5), "nrows": 4, "ncols": 3, "sharex": True, "sharey": True}),
    "optimizers": (draw_optimizers, {"figsize": (9, 4.5)}),
}


def draw(name: str, runs: Mapping[str, Runs], folder: Path) -> None:
    """Write `folder`/`name`.png, 900 pixels wide: `runs` by the name that each setting has in the picture."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    plt.rcParams |= {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8}
    fill, shape = PICTURES[name]
    figure, axes = plt.subplots(layout="constrained", **shape)
    fill(axes, runs)
    folder.mkdir(parents=True, exist_ok=True)
    for each in figure.axes:
        each.xaxis.get_major_locator().set_params(integer=True)
    figure.savefig(folder / f"{name}.png", dpi=100)
    plt.close(figure)
    with Image.open(folder / f"{name}.png") as image:
        image.convert("RGB").quantize(128).save(folder / f"{name}.png", optimize=True)  # a third of the size
