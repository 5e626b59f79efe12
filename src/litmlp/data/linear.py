"""Noisy samples of a linear function of many inputs: so few that a linear model overfits."""

from typing import Any

import torch

from .in_memory import InMemoryData, Samples


class Linear(InMemoryData):
    """y = bias + weight * sum(x) + noise, x from N(0, 1) (Zhang et al., Dive into Deep Learning, section 3.7).

    Args:
        num_inputs: number of values in x.
        num_train, num_test: number of samples of each part; the training part is drawn first.
        weight, bias: of the function.
        noise: standard deviation of the noise added to y.
        **options: see `InMemoryData`; `split_seed` also seeds the samples.
    """

    num_outputs = 1
    stratify = False

    def __init__(
        self,
        num_inputs: int = 200,
        num_train: int = 20,
        num_test: int = 100,
        weight: float = 0.01,
        bias: float = 0.05,
        noise: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, size in (("num_inputs", num_inputs), ("num_train", num_train), ("num_test", num_test)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {size}")
        if noise < 0:
            raise ValueError(f"noise must be at least 0, got {noise}")
        self.sample_shape = (num_inputs,)
        self.num_train, self.num_test = num_train, num_test
        self.weight, self.bias, self.noise = weight, bias, noise

    def load(self) -> tuple[Samples, Samples]:
        generator = torch.Generator().manual_seed(self.split_seed)
        num_samples = self.num_train + self.num_test
        x = torch.randn(num_samples, *self.sample_shape, generator=generator)
        noise = self.noise * torch.randn(num_samples, generator=generator)
        samples = Samples(x, (self.bias + self.weight * x.sum(1) + noise).unsqueeze(1))
        return samples.at(slice(self.num_train)), samples.at(slice(self.num_train, None))
