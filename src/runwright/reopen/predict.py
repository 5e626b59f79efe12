"""What a reopened run says of samples in files."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO, StringIO
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor

from runwright.config.errors import InputError
from runwright.contracts import Prediction
from runwright.reopen.run import Reopened
from runwright.rundir.durable import write

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # whatever the file is called: some of Pillow's run programs
CHUNK = 1000  # samples at a time
SHARE = 4  # of this machine's memory one part in so many is as much as the samples of an archive may take


def predict(run: Reopened, x: Tensor) -> list[Prediction]:
    """What the run's task says of raw x, (N, *sample_shape)."""
    with torch.inference_mode():
        outputs = torch.cat([run.network(chunk).float() for chunk in x.split(CHUNK)])
        return run.task.predictions(outputs)


def read_samples(path: Path, shape: Sequence[int], max_value: float) -> Tensor:
    """Samples as (N, *shape), with values on the scale of the data set's own files.

    Args:
        path: a CSV of one sample a line, with or without a header; an array of (N, *shape), which may be flat or lack
            the ones, as .npy or as the only array of an .npz; or an image, which is one sample.
        shape: of one sample.
        max_value: what white in an image becomes.

    Raises:
        InputError: it is something else, or of another shape, or holds what is no finite number.
    """
    kind = path.suffix.lower()
    with _read_as(path, kind):
        if kind == ".csv":
            array = _read_csv(path)
        elif kind == ".npy":
            array = np.asarray(
                np.load(path, mmap_mode="r", allow_pickle=False)
            )  # mapped: a header may promise any size
        elif kind == ".npz":
            _check_sizes(path)
            with np.load(path, allow_pickle=False) as arrays:
                if len(arrays.files) != 1:
                    raise InputError(f"{path}: must hold one array, it holds {', '.join(arrays.files) or 'none'}")
                array = arrays[arrays.files[0]]
        elif kind in IMAGES:
            array = _read_image(path, shape) * (max_value / 255)
        else:
            raise InputError(f"{path}: must be .csv, .npy, .npz, or an image ({', '.join(IMAGES)})")
    if array.dtype.kind not in "buif":
        raise InputError(f"{path}: must hold numbers, it holds {array.dtype}")
    if array.ndim and not len(array):
        raise InputError(f"{path}: holds no samples")
    if (
        not array.ndim
        or prod(array.shape[1:]) != prod(shape)
        or (array.ndim > 2 and _no_ones(array.shape[1:]) != _no_ones(shape))
    ):
        raise InputError(f"{path}: must hold samples of {tuple(shape)}, flat or not; the array is {array.shape}")
    x = torch.from_numpy(array.astype(np.float32)).view(-1, *shape)
    is_finite = x.flatten(1).isfinite().all(1)
    if not is_finite.all():
        raise InputError(f"{path}: sample {int(is_finite.int().argmin())} (from 0) holds what is no finite number")
    return x


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """As .npz, an array for each prediction, or as .csv, a line for each sample."""
    if path.suffix.lower() == ".npz":
        content = BytesIO()
        arrays: dict[str, Any] = {each.name: each.values.numpy() for each in predictions}
        np.savez(content, **arrays)
        write(path, content.getvalue())
        return
    columns: dict[str, list[str]] = {}
    for each in predictions:
        values = each.values.tolist()
        if each.values.ndim == 1:
            columns[each.name] = [f"{value:.6g}" for value in values]
        else:
            for i, column in enumerate(zip(*values, strict=True)):
                columns[f"{each.column}{i}"] = [f"{value:.6g}" for value in column]
    text = StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows(zip(*columns.values(), strict=True))
    write(path, text.getvalue().encode())


def _check_sizes(path: Path) -> None:
    """A small archive may hold arrays that no memory has room for."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE
    with ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > most:
            raise InputError(f"{path}: its arrays take more than {most:,} bytes, too much for this machine")


def _no_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _read_csv(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file, strict=True) if row]
    if rows and not _are_numbers(rows[0]):
        rows = rows[1:]  # the header
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise InputError(f"{path}: lines have {min(widths)} to {max(widths)} values")
    return np.array(rows, np.float32).reshape(len(rows), max(widths, default=0))


def _are_numbers(row: Sequence[str]) -> bool:
    try:
        return bool([float(value) for value in row])
    except ValueError:
        return False


def _read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    from PIL import Image

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"{path}: this run takes samples of {tuple(shape)}, which are no images")
    with Image.open(path, formats=FORMATS) as image:
        if image.size != (shape[2], shape[1]):
            raise InputError(
                f"{path}: {image.size[0]} by {image.size[1]} pixels, this run takes {shape[2]} by {shape[1]}"
            )
        pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), np.float32)
    return pixels.reshape(1, shape[1], shape[2], shape[0]).transpose(0, 3, 1, 2)


@contextmanager
def _read_as(path: Path, kind: str) -> Iterator[None]:
    """Whatever a parser says of a file that is not what its name says becomes an InputError."""
    try:
        yield
    except (InputError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # zlib's, struct's, PIL's ...: parsers raise what they like
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: cannot be read as {kind}: {reason}") from error
