"""Whether what a data set has loaded is what its class promises."""

import torch
from torch import Tensor

from runwright.config.errors import DataError
from runwright.contracts import Data
from runwright.loop.batches import Samples


def check_samples(samples: Samples, data: Data, part: str) -> None:
    """Refuse what a data set has loaded where it is not as its class promises; a NaN would later be blamed on a layer.

    Args:
        samples: what was loaded.
        data: whose class promises `sample_shape` and `num_outputs`.
        part: of the data set, to begin the message with.

    Raises:
        DataError: with the first sample that is wrong, if it is of one.
    """
    where = f"{type(data).__name__}, {part}"
    x, y = samples if isinstance(samples, tuple) and len(samples) == 2 else (samples, None)
    if not isinstance(samples, Samples) or not isinstance(x, Tensor) or not isinstance(y, Tensor):
        found = f"Samples({kind_of(x)}, {kind_of(y)})" if isinstance(samples, Samples) else kind_of(samples)
        raise DataError(f"{where}: must be Samples(x, y) of two tensors, got {found}")
    if x.is_complex():
        raise DataError(f"{where}: x must hold real numbers, got {x.dtype}")
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(f"{where}: x and y must be as long, got {tuple(x.shape)} and {tuple(y.shape)}")
    if len(x) == 0:
        raise DataError(f"{where}: holds no samples")
    if x.shape[1:] != tuple(data.sample_shape):
        raise DataError(f"{where}: samples are of {tuple(x.shape[1:])}, but sample_shape is {tuple(data.sample_shape)}")
    if y.dtype not in (torch.int64, torch.float32):
        raise DataError(f"{where}: y must be int64 classes or float32 targets, got {y.dtype}")
    shape = (data.num_outputs,) if y.is_floating_point() else ()
    if y.shape[1:] != shape:
        kind = "targets" if y.is_floating_point() else "classes"
        raise DataError(f"{where}: y must be {kind} of {(len(y), *shape)}, got {tuple(y.shape)}")
    for name, values in (("x", x), ("y", y)):
        if values.is_floating_point():  # bytes, such as pictures', take no time here
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
    """All are finite as float32, which is what they become."""
    limit = torch.finfo(torch.float32).max
    low, high = values.aminmax()  # NaN where there is one
    if -limit <= float(low) and float(high) <= limit:
        return
    bad = ~(values.double().abs() <= limit)
    first = int(bad.reshape(len(bad), -1).any(1).nonzero()[0])
    value = float(values[first][bad[first]].flatten()[0])
    raise DataError(f"{where}: {name} of sample {first} (from 0) holds {value:g}, no finite float32")


def kind_of(value: object) -> str:
    """Its type, and its dtype if it has one."""
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ if dtype is None else f"{type(value).__name__} of {dtype}"
