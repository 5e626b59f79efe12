"""What a classifier takes for what, and where it is most wrong."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, distributed
from torchmetrics.functional.classification import multiclass_confusion_matrix

from litmlp.durable import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "test_results.json"


@dataclass
class Mistake:
    """A test sample that was given a wrong class; `sample` is what the model was given, flat."""

    index: int
    target: int
    predicted: int
    probability: float
    sample_shape: list[int]
    sample: list[float]


class Confusion(Callback):
    """Writes `test_results.json` after the test of a classifier, and its pictures for TensorBoard.

    The file holds `class_names`, the counts `confusion` of the whole test set (rows: true classes, columns: predicted
    ones), and `mistakes`, the samples with the most probable wrong predictions, worst first. `index` is a sample's
    place in the test set, where the data loader has `share`, else among those that the process was given.

    It takes tasks whose `test_step` returns the logits (B, C) of batches (x, y) with y of integers; other tests leave
    nothing behind.

    Args:
        num_mistakes: how many are kept.
    """

    def __init__(self, num_mistakes: int = 25) -> None:
        if not isinstance(num_mistakes, int) or num_mistakes < 0:
            raise ValueError(f"num_mistakes must be a whole number of at least 0, got {num_mistakes}")
        self.num_mistakes = num_mistakes

    def on_test_start(self, *args: Any) -> None:
        self._num_seen = 0
        self._confusion: Tensor | None = None
        self._mistakes: list[Tensor] = []  # probability, index, target, predicted and x of each, the worst first

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
            return
        x, y = batch
        if y.ndim != 1 or y.is_floating_point():
            return
        confusion = multiclass_confusion_matrix(outputs, y, outputs.shape[1], validate_args=False)
        self._confusion = confusion if self._confusion is None else self._confusion + confusion
        loader: Any = trainer.test_dataloaders
        first = loader.share(batch_idx).start if hasattr(loader, "share") else self._num_seen
        self._num_seen += len(y)
        probability, predicted = outputs.float().softmax(1).nan_to_num().max(1)
        wrong = (predicted != y).nonzero().flatten()
        wrong = wrong[self._worst(probability[wrong])]
        found = [each[wrong] for each in (probability, torch.arange(len(y), device=y.device) + first, y, predicted, x)]
        if self._mistakes:
            both = [torch.cat(pair) for pair in zip(self._mistakes, found, strict=True)]
            found = [each[self._worst(both[0])] for each in both]
        self._mistakes = found

    def _worst(self, probability: Tensor) -> Tensor:
        return probability.argsort(descending=True, stable=True)[: self.num_mistakes]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        mistakes = [_mistake(*row) for row in zip(*self._mistakes, strict=True)]
        found = [(None if self._confusion is None else self._confusion.cpu(), mistakes)]
        if trainer.world_size > 1:
            found *= trainer.world_size
            distributed.all_gather_object(found, found[0])
        counts = [confusion for confusion, _ in found if confusion is not None]  # a process may have had no sample
        self._confusion, self._mistakes = None, []
        if not counts or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        confusion = torch.stack(counts).sum(0).tolist()
        mistakes = [each for _, of_process in found for each in of_process]
        worst = sorted(mistakes, key=lambda each: (-each.probability, each.index))[: self.num_mistakes]
        names = [str(name) for name in getattr(trainer.datamodule, "class_names", ())]  # type: ignore[attr-defined]
        if len(names) != len(confusion):
            names = [str(number) for number in range(len(confusion))]
        rounded = [asdict(each) | {"probability": round(each.probability, 4)} for each in worst]
        results = {"class_names": names, "confusion": confusion, "mistakes": rounded}
        write(Path(trainer.default_root_dir) / FILE, (json.dumps(results, separators=(",", ":")) + "\n").encode())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                show = logger.experiment.add_figure
                show("test/confusion", plot_confusion(confusion, names), trainer.global_step)
                if worst and len(worst[0].sample_shape) > 1:
                    show("test/mistakes", plot_mistakes(worst, names), trainer.global_step)


def _mistake(probability: Tensor, index: Tensor, target: Tensor, predicted: Tensor, x: Tensor) -> Mistake:
    return Mistake(
        int(index),
        int(target),
        int(predicted),
        float(probability),
        list(x.shape[1:] if x.ndim == 3 and len(x) == 1 else x.shape),  # grey images have no channels
        [float(f"{value:.3g}") for value in x.float().nan_to_num().flatten().tolist()],
    )


def plot_confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> "Figure":
    """Counts by true class (rows) and predicted class; colours go by the root of the share, to show rare mistakes."""
    from matplotlib.figure import Figure

    size = max(4.0, 0.55 * len(names) + 1)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes, shades = figure.subplots(), [[sqrt(count / max(1, sum(row))) for count in row] for row in counts]
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    for row, (line, shades_of_line) in enumerate(zip(counts, shades, strict=True)):
        for column, (count, shade) in enumerate(zip(line, shades_of_line, strict=True)):
            if count:
                axes.text(column, row, str(count), ha="center", va="center", color="white" if shade > 0.6 else "black")
    return figure


def plot_mistakes(mistakes: Sequence[Mistake], names: Sequence[str]) -> "Figure":
    """Images, (H, W) or (C, H, W), with what each is and what it was taken for, how surely."""
    from matplotlib.figure import Figure

    num_columns = ceil(sqrt(len(mistakes)))
    num_rows = ceil(len(mistakes) / num_columns)
    figure = Figure(figsize=(1.7 * num_columns, 2 * num_rows))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, num_columns), ylim=(num_rows, 0))  # one: each takes 20 ms
    axes.set_axis_off()
    for i, mistake in enumerate(mistakes):
        top, left = divmod(i, num_columns)
        image = torch.tensor(mistake.sample).view(mistake.sample_shape)
        image = (image - image.min()) / (image.max() - image.min()).clamp(min=1e-9)
        image = image if image.ndim == 2 else image.movedim(0, -1)
        axes.imshow(image.numpy(), cmap="gray", extent=(left + 0.04, left + 0.96, top + 0.98, top + 0.2), aspect="auto")
        said = f"{names[mistake.predicted]} ({mistake.probability:.0%})"
        axes.text(left + 0.5, top + 0.18, f"is {names[mistake.target]}\nsaid {said}", fontsize=8, ha="center")
    return figure
