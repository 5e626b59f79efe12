"""Batches of samples in memory: the same order on any number of processes, from any place in an epoch."""

from collections.abc import Callable, Iterator
from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Samples(NamedTuple):
    """`x` is (N, *sample_shape), of any dtype; `y` is (N,) int64 classes or (N, num_outputs) float32 targets."""

    x: Tensor
    y: Tensor

    def at(self, index: Tensor | slice) -> "Samples":
        if isinstance(index, slice):
            return Samples(self.x[index], self.y[index])
        # On the CPU, images[index] takes seven times as long.
        return Samples(self.x.index_select(0, index), self.y.index_select(0, index))

    def to(self, device: torch.device) -> "Samples":
        return Samples(self.x.to(device), self.y.to(device))


class Batches:
    """One pass over samples in memory, batch by batch: what Lightning is given as a data loader.

    A shuffled order is a function of (seed, epoch) alone, whatever ran before and on however many processes: each
    process takes its share of every global batch. The last batch may be smaller; no sample is dropped or repeated.

    Args:
        samples: on the device where batches are wanted.
        batch_size: of the global batch, all processes together.
        seed: of the order; None keeps the samples in theirs.
        transform: applied to each batch of x after it was gathered.
        rank, world_size: which process this is, of how many.
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        seed: int | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.samples, self.batch_size, self.seed, self.transform = samples, batch_size, seed, transform
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._next = 0  # batch of the pass under way
        self._start = (0, 0)  # of which epoch the pass is resumed, and with which batch

    # Lightning calls loader.sampler.set_epoch before each epoch, and reads batch_sampler where there is a sampler.
    batch_sampler = None

    @property
    def sampler(self) -> "Batches":
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self._next = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Where a pass is, for a run that is resumed there."""
        return {"epoch": self.epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        # Lightning loads it between two epochs too, where the state is that of the pass that is over.
        self._start = (state["epoch"], state["next"])

    def __len__(self) -> int:
        return ceil(len(self.samples.y) / self.batch_size)

    def size(self, batch_idx: int) -> int:
        """Of a global batch: of what all processes together get."""
        return min(self.batch_size, len(self.samples.y) - batch_idx * self.batch_size)

    def share(self, batch_idx: int) -> slice:
        """This process's part of a global batch, counted in the order of the pass."""
        start, size = batch_idx * self.batch_size, self.size(batch_idx)
        return slice(start + self.rank * size // self.world_size, start + (self.rank + 1) * size // self.world_size)

    def __iter__(self) -> Iterator[Samples]:
        num_samples = len(self.samples.y)
        order = None
        if self.seed is not None:
            epoch_seed = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0])
            order = torch.randperm(num_samples, generator=torch.Generator().manual_seed(epoch_seed))
            order = order.to(self.samples.x.device)
        (epoch, first), self._start = self._start, (0, 0)
        for batch_idx in range(first if epoch == self.epoch else 0, len(self)):
            self._next = batch_idx + 1
            share = self.share(batch_idx)
            batch = self.samples.at(share if order is None else order[share])
            yield batch if self.transform is None else Samples(self.transform(batch.x), batch.y)
