"""Weights for averaging losses over batches, and a check that loss and metrics suit the targets."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

log = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor], Tensor]


def num_averaged(loss: Loss, y: Tensor) -> float | Tensor:
    """The divisor of a mean loss over these targets, with which means over batches average to the mean over a set.

    It is the number of samples; for torch's classification losses, the sum of the class weights of all samples whose
    class is not `ignore_index`.
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or y.is_floating_point() or len(y) == 0:
        return len(y)
    counts = y != loss.ignore_index
    return counts.sum() if loss.weight is None else loss.weight[y * counts].mul(counts).sum()


def check_suits(loss: Loss, metrics: MetricCollection, num_outputs: int, y: Tensor) -> None:
    """Try a loss and metrics on random outputs and some of the training targets, y.

    Raises:
        ValueError: one of them does not accept such targets, or would give meaningless values for them.
    """
    size = 99 if num_outputs == 100 else 100  # so that it differs from num_outputs
    some = y[torch.arange(size) % len(y)]
    generator = torch.Generator().manual_seed(0)  # leaves the run's random state unchanged
    outputs = torch.rand(size, num_outputs, generator=generator).requires_grad_()
    part = f"loss: {type(loss).__name__}"
    try:
        _check_targets(loss, y)
        value = loss(outputs, some)
        value.backward()
        _check_mean(loss, outputs.detach(), some)
        for name, metric in metrics.items(keep_base=True):
            part = f"metrics.{name}: {type(metric).__name__}"
            for each in metric.modules():  # a metric may wrap others
                _check_targets(each, y)
        part, scores = "metrics", metrics.clone()
        scores.update(preds=outputs, target=some, value=value, weight=size)
        for name, score in scores.compute().items():
            part = f"metrics.{name.removeprefix(metrics.prefix or '')}"
            score.item()
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        targets = "estimates" if y.is_floating_point() else "classes"
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{part} does not suit this data, whose targets are {targets}: {reason}") from error


def _check_targets(part: object, y: Tensor) -> None:
    """Refuse targets that a loss or a metric accepts but gives meaningless values for."""
    if not y.is_floating_point():
        return  # a wrong shape raises by itself
    if any(
        base.__name__.startswith("Multiclass") for base in type(part).__mro__
    ):  # it would count them as more samples
        raise ValueError("it takes class numbers, int64 of shape (N,); argmax(1) converts one-hot targets")
    if isinstance(part, nn.CrossEntropyLoss):
        if not 0 <= y.min() <= y.max() <= 1 or not (y.sum(1) - 1).abs().max() < 1e-3:
            raise ValueError("it takes class numbers, or their probabilities, which sum to 1 for each sample")
    elif isinstance(part, nn.BCEWithLogitsLoss | nn.MultiLabelSoftMarginLoss) and not 0 <= y.min() <= y.max() <= 1:
        raise ValueError(f"it takes probabilities, got targets from {y.min():g} to {y.max():g}")


def _check_mean(loss: Loss, outputs: Tensor, y: Tensor) -> None:
    """Warn if the losses of batches do not average to the loss of the set."""
    whole, total, size = float(loss(outputs, y)), 0.0, 0.0
    for part in (slice(37), slice(37, None)):
        if part_size := float(num_averaged(loss, y[part])):
            total, size = total + part_size * float(loss(outputs[part], y[part])), size + part_size
    if size and abs(total / size - whole) > 1e-5 * abs(whole):
        log.warning(
            "task.loss: %s of a set is not the mean over its batches, so train_loss, val_loss and test_loss "
            "depend on data.batch_size and data.eval_batch_size",
            type(loss).__name__,
        )
