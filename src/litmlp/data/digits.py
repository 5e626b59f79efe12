"""Handwritten digits, included in scikit-learn: no download."""

import torch

from .in_memory import Samples, UndividedData


class Digits(UndividedData):
    """1,797 grey images, 8 by 8, ten classes (E. Alpaydin and C. Kaynak, UCI, 1998)."""

    sample_shape = (1, 8, 8)
    num_outputs = 10
    max_value = 16.0

    def load_all(self) -> Samples:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x = torch.from_numpy(images).to(torch.uint8).view(-1, *self.sample_shape)
        return Samples(x, torch.from_numpy(labels).long())
