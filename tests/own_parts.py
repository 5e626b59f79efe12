"""Parts as a project brings them of its own, in a module that a test's conf/trusted.yaml lists."""

import gzip  # noqa: F401  # such modules import what nobody has listed
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: F401
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from runwright.contracts import Data, Stage, Task


class Samples(NamedTuple):
    x: Tensor
    y: Tensor


class Loader:
    """A data loader with what the engine makes use of: it goes on within an epoch, and knows each process's share.

    The order is one of seed and epoch; without seed it is that of the samples.
    """

    batch_sampler = None

    def __init__(self, samples: Samples, batch_size: int, seed: int | None = None) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.epoch, self._next, self._start = 0, 0, (0, 0)

    @property
    def sampler(self) -> "Loader":
        return self

    def set_epoch(self, epoch: int) -> None:
        self._next = self._next if epoch == self.epoch else 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = (state["epoch"], state["next"])

    def share(self, batch_idx: int) -> slice:
        return slice(batch_idx * self.batch_size, (batch_idx + 1) * self.batch_size)

    def __len__(self) -> int:
        return ceil(len(self.samples.y) / self.batch_size)

    def __iter__(self) -> Iterator[Samples]:
        order = torch.arange(len(self.samples.y))
        if self.seed is not None:
            order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(self.seed + self.epoch))]
        (epoch, first), self._start = self._start, (0, 0)
        for batch_idx in range(first if epoch == self.epoch else 0, len(self)):
            self._next = batch_idx + 1
            part = order[self.share(batch_idx)]
            yield Samples(self.samples.x[part], self.samples.y[part])


class Points(LightningDataModule, Data):
    """Random points of four coordinates: which is the largest, which are positive, or the points themselves."""

    sample_shape = (4,)
    num_outputs = 4

    def __init__(self, targets: str = "classes", batch_size: int = 16) -> None:
        super().__init__()
        self.targets, self.batch_size = targets, batch_size
        self.class_names = ["a", "b", "c", "d"] if targets == "classes" else []

    def setup(self, stage: str | None = None) -> None:
        x = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))
        y = {"classes": x.argmax(1), "labels": (x > 0).float(), "points": x}[self.targets]
        self.train, self.val, self.test = (TensorDataset(x[part], y[part]) for part in torch.arange(96).chunk(3))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.test, self.batch_size)


class Autoencoder(LightningModule, Task):
    """Trains a model to give back what it is given. It defines no more of `Task` than a task has to."""

    def __init__(self, model: nn.Module, optimizer: Callable[..., Any], scheduler: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler

    def metric_keys(self, stage: Stage) -> list[str]:
        return [f"{stage}_loss"]

    def _loss(self, stage: Stage, x: Tensor) -> Tensor:
        loss = functional.mse_loss(self.model(x), x)
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True, batch_size=len(x))
        return loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self._loss("train", batch[0])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss("val", batch[0])

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._loss("test", batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(list(self.parameters()))
        steps = self.trainer.estimated_stepping_batches
        return {
            "optimizer": optimizer,
            "lr_scheduler": self.scheduler(optimizer, steps, self.trainer.num_training_batches),
        }


class Unfinished(LightningModule):
    """A task that knows nothing of `Task`."""

    def __init__(self, model: nn.Module, optimizer: object, scheduler: object) -> None:
        super().__init__()
        self.model = model


class FocalLoss(nn.Module):
    """Lin et al., 2017: cross-entropy in which samples that are right already count less."""

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, y, reduction="none")
        return ((1 - (-losses).exp()) ** self.gamma * losses).mean()


def read(path: str) -> bytes:
    """What a recorded run may not call."""
    return Path(path).read_bytes()
