"""Data sets that fit in memory, as tensors from which whole batches are gathered by index."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor, nn

from runwright.config.errors import DataError
from runwright.contracts import Data
from runwright.loop.batches import Batches, Samples

from .checks import check_samples, kind_of

TRANSFORMED_ONCE = 2**24
"""Number of values (64 MiB of float32) up to which a set in fixed order is transformed once, not in each epoch. With
random batches it is as fast to gather bytes and to transform each batch."""


class Normalize(nn.Module):
    """x * scale + shift in float32, for x of any dtype; scale and shift are numbers or one per feature."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", shift.float())

    def forward(self, x: Tensor) -> Tensor:
        # In place on a copy: on large batches three times as fast as an expression that allocates each result.
        return x.to(torch.float32, copy=True).mul_(self.scale).add_(self.shift)


class InMemoryData(LightningDataModule, Data, ABC):
    """A data set as tensors in memory, on the training device if it fits there.

    A subclass sets `sample_shape` and `num_outputs`, with which the model is built before any data are read, and
    defines `load`. After `setup`, `train`, `val` (None if there is none) and `test` hold the raw samples, and
    `transform` turns raw x into the model's input.

    Args:
        batch_size: of the global batch, summed over all devices.
        eval_batch_size: the same for validation and test, where it affects only speed.
        val_size: part of the training samples held out for validation: a fraction, a count, or 0 for none.
        validate_on_test: use the test set as the validation set, to see the test loss of every epoch as in the notes
            (see litmlp/__init__.py). Choose nothing by it then: no early stopping, no best checkpoint.
        split_seed: for the splits; separate from `seed`, so that runs with different seeds have the same splits.
        seed: for the order of the training samples.
        shuffle: use a new order in each epoch.
        normalize: None; `[mean, std]` of x after scaling to [0, 1]; or `fit`, for the mean and std of each feature
            over the training part.
        augment: applied to each training batch, (B, *sample_shape) on its device, after normalisation.

    Raises:
        ValueError: an argument is out of range; from `setup`, it does not suit the data.
        DataError: from `setup`, `load` returned something other than `Samples` of the declared shape.
    """

    sample_shape: tuple[int, ...]
    num_outputs: int
    class_names: Sequence[str] = ()
    """Names of the classes, in order; empty if they have only numbers."""
    feature_names: Sequence[str] = ()
    """Names of a sample's values, in order, or empty; `load` may set them. Checkpoints include them."""
    max_value: float = 1.0
    """The largest x that `load` returns; x is divided by it."""
    stratify: bool = True
    """Whether splits keep the share of each class."""

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 1000,
        val_size: float = 0.1,
        validate_on_test: bool = False,
        split_seed: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        normalize: Sequence[float] | str | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        least = {"batch_size": 1, "eval_batch_size": 1, "split_seed": 0, "seed": 0}
        given = (batch_size, eval_batch_size, split_seed, seed)
        for (name, smallest), number in zip(least.items(), given, strict=True):
            if not isinstance(number, int) or number < smallest:
                raise ValueError(f"{name} must be a whole number of at least {smallest}, got {number}")
        if val_size < 0 or (val_size >= 1 and val_size != int(val_size)):
            raise ValueError(f"val_size must be a fraction below 1, a count, or 0 for none, got {val_size}")
        if validate_on_test and val_size:
            raise ValueError(f"validate_on_test replaces the validation part: val_size must be 0, got {val_size}")
        if isinstance(normalize, str):
            if normalize != "fit":
                raise ValueError(f"normalize must be null, fit or [mean, std], got {normalize!r}")
        elif normalize is not None and (len(normalize) != 2 or normalize[1] <= 0):
            raise ValueError(f"normalize must be [mean, std] with std above 0, got {list(normalize)}")
        if augment is not None and not callable(augment):
            raise ValueError(f"augment must be null or a callable on a batch, got {augment!r}")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_size, self.validate_on_test, self.split_seed = val_size, validate_on_test, split_seed
        self.seed, self.shuffle = seed, shuffle
        self.normalize, self.augment = normalize, augment
        self.train: Samples | None = None
        self.val: Samples | None = None
        self.test: Samples | None = None
        self.transform: Normalize | None = None

    @property
    def num_train_samples(self) -> int | None:
        return None if self.train is None else len(self.train.y)

    def preprocessing(self) -> nn.Module:
        return nn.Identity() if self.transform is None else self.transform

    @abstractmethod
    def load(self) -> tuple[Samples, Samples]:
        """Read the training samples (validation part included) and the test samples."""

    def setup(self, stage: str | None = None) -> None:
        if self.train is not None:
            return
        parts = self.load()
        if not isinstance(parts, tuple | list) or len(parts) != 2:
            raise DataError(
                f"{type(self).__name__}: load() must return training and test Samples, got {kind_of(parts)}"
            )
        for part, samples in zip(("training part", "test part"), parts, strict=True):
            check_samples(samples, self, part)
        self._check_names(self.feature_names)
        train, self.test = parts
        num_val = _count("val_size", self.val_size, train.y, self.stratify)
        if num_val:
            train, self.val = split(train, num_val, self.split_seed, self.stratify)
        elif self.validate_on_test:
            self.val = self.test
        if self.batch_size > len(train.y):
            raise ValueError(f"batch_size={self.batch_size} is larger than the training set ({len(train.y):,} samples)")
        self.train = train
        if self.transform is None:  # otherwise it was loaded from a checkpoint, and the weights depend on it
            self.transform = self._fit_transform(train.x)

    def _fit_transform(self, x: Tensor) -> Normalize:
        if self.normalize == "fit":
            mean, std = x.double().mean(0), x.double().std(0, correction=0)
            std[std == 0] = 1  # a constant feature has nothing to scale
        else:
            mean, std = self.max_value * torch.tensor(self.normalize or (0.0, 1.0), dtype=torch.double)
        return Normalize(1 / std, -mean / std)

    def _check_names(self, names: Sequence[str]) -> None:
        size, kinds = prod(self.sample_shape), {type(name) for name in names}
        if names and (isinstance(names, str) or len(names) != size or len(set(names)) != size or kinds != {str}):
            got = str(list(names))[:100]
            raise DataError(f"{type(self).__name__}: feature_names must be {size} different strings, got {got}")

    def state_dict(self) -> dict[str, Any]:
        """What was fitted to the training samples, for use of a checkpoint without the samples."""
        names = {"feature_names": list(self.feature_names)} if self.feature_names else {}
        return {} if self.transform is None else {**self.transform.state_dict(), **names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        fitted = dict(state_dict)
        names = fitted.pop("feature_names", self.feature_names)
        self._check_names(names)
        self.transform, self.feature_names = Normalize(**fitted), names

    def train_dataloader(self) -> Batches:
        assert self.train is not None, "setup() comes first"
        return self._batches(self.train, self.batch_size, self.seed if self.shuffle else None, self.augment)

    def val_dataloader(self) -> Batches | list[Any]:
        return [] if self.val is None else self._batches(self.val, self.eval_batch_size)

    def test_dataloader(self) -> Batches:
        assert self.test is not None, "setup() comes first"
        return self._batches(self.test, self.eval_batch_size)

    def _batches(
        self,
        samples: Samples,
        batch_size: int,
        seed: int | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Batches:
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device, rank, world_size = (
                self.trainer.strategy.root_device,
                self.trainer.global_rank,
                self.trainer.world_size,
            )
        if _fits(samples, device):
            samples = samples.to(device)
        assert self.transform is not None, "setup() comes first"
        transform = self.transform.to(samples.x.device)
        if seed is None and augment is None and samples.x.numel() <= TRANSFORMED_ONCE:
            return Batches(Samples(transform(samples.x), samples.y), batch_size, None, None, rank, world_size)
        whole = transform if augment is None else lambda x: augment(transform(x))
        return Batches(samples, batch_size, seed, whole, rank, world_size)

    def transfer_batch_to_device(self, batch: Samples, device: torch.device, dataloader_idx: int) -> Samples:
        return batch.to(device)


def split(samples: Samples, num_held_out: int, seed: int, stratify: bool) -> tuple[Samples, Samples]:
    """Hold out `num_held_out` random samples; `stratify` keeps the share of each class."""
    from sklearn.model_selection import train_test_split  # takes a second to import, and only a split needs it

    index = np.arange(len(samples.y))
    kept, held_out = train_test_split(
        index, test_size=num_held_out, random_state=seed, stratify=samples.y.numpy() if stratify else None
    )
    return samples.at(torch.from_numpy(np.sort(kept))), samples.at(torch.from_numpy(np.sort(held_out)))


def hold_out_fold(samples: Samples, fold: int, num_folds: int, seed: int, stratify: bool) -> tuple[Samples, Samples]:
    """The samples outside and inside one of `num_folds` shuffled, disjoint folds that cover all samples."""
    from sklearn.model_selection import KFold, StratifiedKFold

    folds = (StratifiedKFold if stratify else KFold)(num_folds, shuffle=True, random_state=seed)
    kept, held_out = list(folds.split(samples.x.numpy(), samples.y.numpy()))[fold]
    return samples.at(torch.from_numpy(kept)), samples.at(torch.from_numpy(held_out))


class UndividedData(InMemoryData):
    """A data set without a test part of its own: the test samples are a random part of it, or one of k folds.

    A subclass defines `load_all`.

    Args:
        test_size: fraction or count of the samples held out for the test, unless `fold` is set; 0 trains and tests on
            all samples.
        fold: which of the `num_folds` folds is the test set, from 0; None for no folds. A sweep over it is a k-fold
            cross-validation.
        num_folds: k.
        stratify: whether every split and fold keeps the share of each class.
        **options: see `InMemoryData`.
    """

    def __init__(
        self,
        test_size: float = 0.2,
        fold: int | None = None,
        num_folds: int = 10,
        stratify: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if test_size < 0 or (test_size >= 1 and test_size != int(test_size)):
            raise ValueError(f"test_size must be a fraction below 1, a count, or 0 for all, got {test_size}")
        if not isinstance(num_folds, int) or num_folds < 2:
            raise ValueError(f"num_folds must be a whole number of at least 2, got {num_folds}")
        if fold is not None and fold not in range(num_folds):
            raise ValueError(f"fold must be null or from 0 to {num_folds - 1} (num_folds={num_folds}), got {fold}")
        self.test_size, self.fold, self.num_folds, self.stratify = test_size, fold, num_folds, stratify

    @abstractmethod
    def load_all(self) -> Samples:
        """Read all samples."""

    def load(self) -> tuple[Samples, Samples]:
        samples = self.load_all()
        check_samples(samples, self, "load_all()")  # before a split renumbers the samples
        if self.fold is not None:
            return hold_out_fold(samples, self.fold, self.num_folds, self.split_seed, self.stratify)
        num_test = _count("test_size", self.test_size, samples.y, self.stratify)
        if num_test == 0:
            return samples, samples
        return split(samples, num_test, self.split_seed, self.stratify)


def _count(name: str, size: float, y: Tensor, stratify: bool) -> int:
    """Convert a fraction or a count of samples to a count, and check it against these labels."""
    count = round(size * len(y)) if size < 1 else int(size)
    if count >= len(y):
        raise ValueError(f"{name}={size} leaves nothing of the {len(y):,} samples to train on")
    least = len(y.unique()) if stratify else 1
    if size > 0 and count < least:
        raise ValueError(f"{name}={size} of {len(y):,} samples is {count}, but must be at least {least}, or 0 for none")
    return count


def _fits(samples: Samples, device: torch.device) -> bool:
    """Whether the device has room for twice the samples: the other half is for training."""
    if device.type != "cuda":
        return device.type == "cpu"
    free, _ = torch.cuda.mem_get_info(device)
    return 2 * (samples.x.nbytes + samples.y.nbytes) < free
