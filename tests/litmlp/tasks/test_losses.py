"""A task and data that do not go together are refused before the first step."""

import logging
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from torchmetrics.classification import (
    BinaryAccuracy,
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassF1Score,
    MultilabelAccuracy,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score
from torchmetrics.wrappers import ClasswiseWrapper

from litmlp.data.in_memory import InMemoryData, Samples
from litmlp.optim import Schedule
from litmlp.tasks.supervised import SupervisedTask

CLASSES = torch.arange(150) % 3
TARGETS = {
    "classes": CLASSES,
    "one-hot": one_hot(CLASSES, 3).float(),
    "probabilities": one_hot(CLASSES, 3) * 0.7 + 0.1,
    "labels": (torch.arange(450).view(150, 3) % 7 < 3).float(),
    "estimates": torch.linspace(-2, 5, 450).view(150, 3),
}


class Data(InMemoryData):
    sample_shape = (4,)
    num_outputs = 3
    stratify = False
    targets = CLASSES

    def load(self):
        samples = Samples(torch.randn(150, 4), self.targets)
        return samples, samples


def check(targets, loss, metrics=()):
    data = Data()
    data.targets, data.num_outputs = targets, targets.shape[1] if targets.ndim > 1 else int(targets.max()) + 1
    data.setup()
    named = {f"m{i}": metric for i, metric in enumerate(metrics)}
    schedule = Schedule(ConstantLR)
    SupervisedTask(nn.Linear(4, 3), loss, named, partial(SGD, lr=0.1), schedule).check(data)


accuracy, f1, auroc = MulticlassAccuracy(3, average="micro"), MulticlassF1Score(3), MulticlassAUROC(3)
SUITABLE = [
    ("classes", nn.CrossEntropyLoss(), [accuracy, f1, auroc]),
    ("classes", nn.CrossEntropyLoss(weight=torch.ones(3), ignore_index=0), [MulticlassAccuracy(3, ignore_index=0)]),
    ("classes", nn.MultiMarginLoss(), [MulticlassAccuracy(3, top_k=2)]),
    ("one-hot", nn.CrossEntropyLoss(), [MeanSquaredError()]),
    ("probabilities", nn.CrossEntropyLoss(label_smoothing=0.1), []),
    ("one-hot", nn.MSELoss(), [MeanAbsoluteError()]),
    ("labels", nn.BCEWithLogitsLoss(), [MultilabelAccuracy(3), BinaryAccuracy()]),
    ("estimates", nn.HuberLoss(), [R2Score(), MeanAbsoluteError()]),
]
UNSUITABLE = [
    ("one-hot", nn.CrossEntropyLoss(), [accuracy], "task.metrics.m0: MulticlassAccuracy", "argmax"),
    ("one-hot", nn.CrossEntropyLoss(), [MeanSquaredError(), f1], "task.metrics.m1: MulticlassF1Score", "class numbers"),
    ("labels", nn.BCEWithLogitsLoss(), [auroc], "task.metrics.m0: MulticlassAUROC", "class numbers"),
    ("estimates", nn.MSELoss(), [accuracy], "task.metrics.m0: MulticlassAccuracy", "class numbers"),
    ("one-hot", nn.CrossEntropyLoss(), [ClasswiseWrapper(f1)], "task.metrics.m0: ClasswiseWrapper", "class numbers"),
    ("estimates", nn.MSELoss(), [MultilabelAccuracy(3)], "task.metrics", "whose targets are estimates"),
    ("classes", nn.CrossEntropyLoss(), [R2Score()], "task.metrics", "whose targets are classes"),
    ("classes", nn.CrossEntropyLoss(), [MulticlassAccuracy(2)], "task.metrics", "whose targets are classes"),
    ("classes", nn.MSELoss(), [], "task.loss: MSELoss", "whose targets are classes"),
    ("classes", nn.BCEWithLogitsLoss(), [], "task.loss: BCEWithLogitsLoss", "whose targets are classes"),
    ("estimates", nn.CrossEntropyLoss(), [], "task.loss: CrossEntropyLoss", "sum to 1"),
    ("labels", nn.CrossEntropyLoss(), [], "task.loss: CrossEntropyLoss", "sum to 1"),
    ("estimates", nn.BCEWithLogitsLoss(), [], "task.loss: BCEWithLogitsLoss", "from -2 to 5"),
    ("estimates", nn.NLLLoss(), [], "task.loss: NLLLoss", "whose targets are estimates"),
]


@pytest.mark.parametrize(("targets", "loss", "metrics"), SUITABLE, ids=str)
def test_what_goes_together_passes_in_silence(targets, loss, metrics, caplog):
    check(TARGETS[targets], loss, metrics)
    assert not caplog.records


@pytest.mark.parametrize(("targets", "loss", "metrics", "part", "reason"), UNSUITABLE, ids=str)
def test_what_does_not_go_together_is_refused(targets, loss, metrics, part, reason):
    with pytest.raises(ValueError, match="suit") as caught:
        check(TARGETS[targets], loss, metrics)
    message = f"task.{caught.value}"  # as `train` says it
    assert message.startswith(part)
    assert reason in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("num_outputs", [2, 99, 100, 101])
def test_a_number_of_classes_is_not_taken_for_the_number_of_samples(num_outputs):
    with pytest.raises(ValueError, match="whose targets are classes"):
        check(torch.arange(150) % num_outputs, nn.MSELoss())


def total(output, y):
    return (output - y).square().sum()


def own_weights(output, y):
    return (y * (output - y).square()).sum() / y.sum()


@pytest.mark.parametrize("loss", [total, own_weights])
def test_a_loss_whose_batches_do_not_make_up_the_set_is_said(loss, caplog):
    with caplog.at_level(logging.WARNING):
        check(TARGETS["labels"], loss)
    assert "data.eval_batch_size" in caplog.text
