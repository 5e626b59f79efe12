"""The confusion matrix of a classifier, and its most confident mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, distributed
from torchmetrics.functional.classification import multiclass_confusion_matrix

from runwright.contracts import Data, SharingLoader
from runwright.pages.pictures import Mistake, as_image, draw_confusion, draw_mistakes
from runwright.rundir.durable import write
from runwright.rundir.files import RESULTS

MOST_CLASSES = 100  # more would make the picture unreadable


class Confusion(Callback):
    """Writes `test_results.json` after the test of a classifier, and pictures to TensorBoard.

    The file holds `class_names`, the counts `confusion` of the whole test set (rows: true classes, columns: predicted
    ones), and `mistakes`, the samples with the most probable wrong predictions, worst first. `index` is a sample's
    position in the test set if the data loader is a `contracts.SharingLoader`, else among the samples of its process.

    It needs a task whose `test_step` returns the logits (B, C) of batches (x, y) with integer y; for other tasks it
    writes nothing.

    Args:
        num_mistakes: how many mistakes to keep.
    """

    def __init__(self, num_mistakes: int = 25) -> None:
        if not isinstance(num_mistakes, int) or num_mistakes < 0:
            raise ValueError(f"num_mistakes must be a whole number of at least 0, got {num_mistakes}")
        self.num_mistakes = num_mistakes

    def on_test_start(self, *args: Any) -> None:
        self._num_seen = 0
        self._confusion: Tensor | None = None
        self._mistakes: list[Tensor] = []  # probability, index, target, predicted and x, worst first

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
        loader = trainer.test_dataloaders
        first = loader.share(batch_idx).start if isinstance(loader, SharingLoader) else self._num_seen
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
        counts = [confusion for confusion, _ in found if confusion is not None]  # a process may have no samples
        self._confusion, self._mistakes = None, []
        if not counts or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        confusion = torch.stack(counts).sum(0).tolist()
        mistakes = [each for _, mistakes in found for each in mistakes]
        worst = sorted(mistakes, key=lambda each: (-each.probability, each.index))[: self.num_mistakes]
        data: Data | None = trainer.datamodule  # type: ignore[attr-defined]  # undeclared
        names = [] if data is None else [str(name) for name in data.class_names]
        if len(names) != len(confusion):
            names = [str(number) for number in range(len(confusion))]
        rounded = [vars(each) | {"probability": round(each.probability, 4)} for each in worst]
        results = {"class_names": names, "confusion": confusion, "mistakes": rounded}
        write(Path(trainer.default_root_dir) / RESULTS, (json.dumps(results, separators=(",", ":")) + "\n").encode())
        pictures = {"test/confusion": draw_confusion(confusion, names)} if len(names) <= MOST_CLASSES else {}
        if worst and as_image(worst[0].sample, worst[0].sample_shape):
            pictures["test/mistakes"] = draw_mistakes(worst, names)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                for tag, picture in pictures.items():
                    logger.experiment.add_image(tag, np.asarray(picture), trainer.global_step, dataformats="HWC")


def _mistake(probability: Tensor, index: Tensor, target: Tensor, predicted: Tensor, x: Tensor) -> Mistake:
    return Mistake(
        int(index),
        int(target),
        int(predicted),
        float(probability),
        list(x.shape[1:] if x.ndim == 3 and len(x) == 1 else x.shape),  # grey images lose their channel axis
        [float(f"{value:.3g}") for value in x.float().nan_to_num().flatten().tolist()],
    )
