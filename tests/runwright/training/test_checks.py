"""Loaders of one's own and several processes."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from own_parts import Loader, Samples
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from runwright.config.errors import InputError
from runwright.training.checks import check_loaders

X, Y = torch.zeros(10, 2), torch.zeros(10, dtype=torch.long)


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(X)


def batches(size: int) -> DataLoader:
    return DataLoader(TensorDataset(X, Y), batch_size=size)


def check(train: Any, val: Any = (), world_size: int = 2, samples: bool = True) -> None:
    data = SimpleNamespace(
        batch_size=4,
        train_dataloader=lambda: train,
        val_dataloader=lambda: list(val),
        test_dataloader=lambda: batches(5),
    )
    cfg = OmegaConf.create({"trainer": {"use_distributed_sampler": samples}})
    check_loaders(cfg, SimpleNamespace(world_size=world_size), data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "train",
    [Loader(Samples(X, Y), 4), batches(2), [batches(2), batches(2)], DataLoader(TensorDataset(X), None)],
    ids=["in memory", "torch", "two of them", "without batches"],
)
def test_loaders_that_can_be_shared_pass(train: Any) -> None:
    check(train, [batches(7)])


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (batches(4), [], ["data.batch_size=4", "2 processes", "batches of 4", "batch_size // self.trainer.world_size"]),
        (batches(1), [], ["data.batch_size=4", "batches of 1"]),
        (DataLoader(Stream(), 2), [], ["train_dataloader, a DataLoader", "each of 2", "use_distributed_sampler=false"]),
        (batches(2), [batches(2), DataLoader(Stream())], ["val_dataloader, a DataLoader", "all batches"]),
        ([(X, Y)], [], ["train_dataloader", "all batches"]),
    ],
    ids=["whole batches", "small batches", "iterable", "iterable validation", "a list"],
)
def test_loaders_that_would_give_every_process_all_are_refused(train: Any, val: list[Any], expected: list[str]) -> None:
    with pytest.raises(InputError) as error:
        check(train, val)
    assert all(fragment in str(error.value) for fragment in expected), error.value
    check(train, val, world_size=1)
    check(train, val, samples=False)
