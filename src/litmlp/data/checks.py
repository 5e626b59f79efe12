"""Checks that loaded samples match what their data set's class declares."""

import torch
from torch import Tensor

from runwright.config.errors import DataError
from runwright.contracts import Data
from runwright.loop.batches import Samples


def check_samples(samples: Samples, data: Data, part: str) -> None:
    """Refuse samples that do not match their class; a NaN among them would later look like a layer's fault.

    Args:
        samples: as loaded.
        data: declares `sample_shape` and `num_outputs`.
        part: name of the part of the data set, for the error message.

    Raises:
        DataError: names the first wrong sample, if single samples are wrong.
    """
    where = f"{type(data).__name__}, {part}"
    x, y = samples if isinstance(samples, tuple) and len(samples) == 2 else (samples, None)
    if not isinstance(samples, Samples) or not isinstance(x, Tensor) or not isinstance(y, Tensor):
        found = f"Samples({kind_of(x)}, {kind_of(y)})" if isinstance(samples, Samples) else kind_of(samples)
        raise DataError(f"{where}: must be Samples(x, y) of two tensors, got {found}")
    if x.is_complex():
        raise DataError(f"{where}: x must hold real numbers, got {x.dtype}")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(f"{where}: x and y must have the same length, got {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) == 0:
        raise DataError(f"{where}: holds no samples")
    if x.shape[1:] != tuple(data.sample_shape):
        raise DataError(
            f"{where}: samples have shape {tuple(x.shape[1:])}, but sample_shape is {tuple(data.sample_shape)}"
        )
    if y.dtype not in (torch.int64, torch.float32):
        raise DataError(f"{where}: y must be int64 classes or float32 targets, got {y.dtype}")
    shape = (data.num_outputs,) if y.is_floating_point() else ()
    if y.shape[1:] != shape:
        kind = "targets" if y.is_floating_point() else "classes"
        raise DataError(f"{where}: y must be {kind} of {(len(y), *shape)}, got {tuple(y.shape)}")
    for name, values in (("x", x), ("y", y)):
        if values.is_floating_point():  # integers are always finite
            _check_finite(values, name, where)
    if y.is_floating_point():
        return
    if data.num_outputs < 2:
        raise DataError(
            f"{where}: y holds classes, but num_outputs is {data.num_outputs}; "
            f"targets of a regression are float32 of {(len(y), data.num_outputs)}"
        )
    least, most = (int(label) for label in y.aminmax())
    if least < 0 or most >= data.num_outputs:
        first = int(((y < 0) | (y >= data.num_outputs)).nonzero()[0])
        allowed = f"from 0 to {data.num_outputs - 1} (num_outputs={data.num_outputs})"
        raise DataError(f"{where}: the label of sample {first} (from 0) is {int(y[first])}, must be {allowed}")


def _check_finite(values: Tensor, name: str, where: str) -> None:
    """Check that all values are finite as float32, to which they will be converted."""
    limit = torch.finfo(torch.float32).max
    low, high = values.aminmax()  # NaN if any value is
    if -limit <= float(low) and float(high) <= limit:
        return
    bad = ~(values.double().abs() <= limit)
    first = int(bad.reshape(len(bad), -1).any(1).nonzero()[0])
    value = float(values[first][bad[first]].flatten()[0])
    raise DataError(f"{where}: {name} of sample {first} (from 0) holds {value:g}, which is not finite as float32")


def kind_of(value: object) -> str:
    """The type's name, with the dtype if there is one."""
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"
