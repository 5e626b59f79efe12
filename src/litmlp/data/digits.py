"""Handwritten digits that ship with scikit-learn: no download."""

from typing import Any

import torch

from litmlp.data.in_memory import InMemoryData, Samples, split


class Digits(InMemoryData):
    """1,797 grey images of 8 by 8, ten classes (E. Alpaydin and C. Kaynak, UCI, 1998).

    Args:
        test_size: share of the samples held out for the test, which the set does not define.
        **options: see `InMemoryData`.
    """

    sample_shape = (1, 8, 8)
    num_outputs = 10
    max_value = 16.0

    def __init__(self, test_size: float = 0.2, **options: Any) -> None:
        if not 0 < test_size < 1:
            raise ValueError(f"test_size must be a fraction between 0 and 1, got {test_size}")
        super().__init__(**options)
        self.test_size = test_size

    def load(self) -> tuple[Samples, Samples]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        samples = Samples(
            torch.from_numpy(images).to(torch.uint8).view(-1, *self.sample_shape), torch.from_numpy(labels).long()
        )
        return split(samples, round(self.test_size * len(labels)), self.split_seed, self.stratify)
