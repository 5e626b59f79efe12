"""Max-norm regularisation (Srivastava et al., 2014): a bound on the weights that feed each unit."""

import re
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn


class MaxNorm(Callback):
    """After each update, scales down every row of the chosen weights whose L2 norm exceeds `max_norm`.

    A row is the incoming weight vector of one unit, without its bias.

    Args:
        max_norm: the largest norm allowed.
        pattern: regex that selects linear layers by name; the default leaves out the output layer.
    """

    def __init__(self, max_norm: float = 3.0, pattern: str = "hidden") -> None:
        if max_norm <= 0:
            raise ValueError(f"max_norm must be above 0, got {max_norm}")
        self.max_norm, self.pattern = max_norm, re.compile(pattern)
        self._weights: list[Tensor] = []

    def check(self, task: LightningModule) -> None:
        """Raise a ValueError if no linear layer's name matches the pattern."""
        self._weights_of(task)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._weights = self._weights_of(pl_module)

    def _weights_of(self, task: LightningModule) -> list[Tensor]:
        layers = {name: module for name, module in task.named_modules() if isinstance(module, nn.Linear)}
        weights: list[Tensor] = [layer.weight for name, layer in layers.items() if self.pattern.search(name)]
        if not weights:
            raise ValueError(
                f"pattern {self.pattern.pattern!r} matches no linear layer; there are: {', '.join(layers)}"
            )
        return weights

    @torch.no_grad()
    def on_train_batch_end(self, *args: Any) -> None:
        for weight in self._weights:
            torch.renorm(weight, p=2, dim=0, maxnorm=self.max_norm, out=weight)
