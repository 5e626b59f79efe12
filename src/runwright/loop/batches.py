"""Batches of samples in memory, in the same order on any number of processes, resumable within an epoch."""

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
        # images[index] takes seven times as long on the CPU.
        return Samples(self.x.index_select(0, index), self.y.index_select(0, index))

    def to(self, device: torch.device) -> "Samples":
        return Samples(self.x.to(device), self.y.to(device))


class Batches:
    """A data loader over samples in memory.

    A shuffled order depends on (seed, epoch) alone, not on what ran before or on the number of processes: each process
    takes its share of every global batch. The last batch may be smaller; no sample is dropped or repeated.

    Args:
        samples: already on the device that the batches should be on.
        batch_size: of the global batch, summed over all processes.
        seed: for shuffling; None keeps the order of the samples.
        transform: applied to the x of each batch.
        rank, world_size: index of this process and number of processes.
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
        self._next = 0  # index of the next batch
        self._start = (0, 0)  # epoch and batch to resume at

    # Lightning calls loader.sampler.set_epoch before each epoch; a loader with a sampler must have batch_sampler too.
    batch_sampler = None

    @property
    def sampler(self) -> "Batches":
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self._next = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The position within the epoch, to resume there."""
        return {"epoch": self.epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        # Between two epochs Lightning loads the state of the finished one; __iter__ ignores it by its epoch.
        self._start = (state["epoch"], state["next"])

    def __len__(self) -> int:
        return ceil(len(self.samples.y) / self.batch_size)

    def size(self, batch_idx: int) -> int:
        """Number of samples in a global batch, summed over all processes."""
        return min(self.batch_size, len(self.samples.y) - batch_idx * self.batch_size)

    def share(self, batch_idx: int) -> slice:
        """This process's part of a global batch, as positions in the epoch's order."""
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
