"""Predictions of a reopened run for samples in files."""

import csv
import os
import re
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
FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "TIFF",
    "WEBP",
)  # whatever the suffix: some of Pillow's other formats run programs
MODES = ("1", "L", "RGB")  # of Pillow; converting any other mode to these would lose information
ORIENTATION = 274  # EXIF tag
CHUNK = 1000  # samples at a time
SHARE = 4  # the arrays of an .npz may take 1/4 of this machine's memory

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NO_NAME = re.compile(r"([+-]?\.?\d.*|[\W_]*|n/?a|nan|none|null|missing|[+-]?inf(inity)?)", re.IGNORECASE | re.DOTALL)
"""Fields that are not column names but missing numbers, or numbers in another notation: hex, decimal comma, unit."""


def predict(run: Reopened, x: Tensor) -> list[Prediction]:
    """The task's predictions for raw x, (N, *sample_shape).

    Raises:
        InputError: an output is not finite; argmax would turn it into a class.
    """
    with torch.inference_mode():
        outputs = torch.cat([run.network(chunk).float() for chunk in x.split(CHUNK)])
        is_finite = outputs.flatten(1).isfinite().all(1)
        if not is_finite.all():
            first = int(is_finite.int().argmin())
            values = ", ".join(f"{value:g}" for value in outputs[first].flatten()[:4].tolist())
            raise InputError(
                f"{run.checkpoint}: its output for sample {first} (from 0, of all inputs) is not finite: {values}"
            )
        return run.task.predictions(outputs)


def read_samples(path: Path, shape: Sequence[int], max_value: float, feature_names: Sequence[str] = ()) -> Tensor:
    """Read samples as (N, *shape), with values on the scale of the data set's own files.

    Args:
        path: a CSV with one sample per line, with or without a header; an array of (N, *shape), optionally flattened
            or without axes of size 1, as .npy or as the only array of an .npz; or an image, which is one sample.
        shape: of one sample.
        max_value: the value of white in an image.
        feature_names: in the order of a sample's values, if they are known; a CSV header must then use these names.

    Raises:
        InputError: another format or shape, or a value that is not a finite number.
    """
    kind = path.suffix.lower()
    with _read_as(path, kind):
        if kind == ".csv":
            array = _read_csv(path, shape, feature_names)
        elif kind == ".npy":
            # Mapped, because a header can claim any size.
            array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
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
        raise InputError(f"{path}: sample {int(is_finite.int().argmin())} (from 0) is not finite as float32")
    return x


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write .npz with an array per prediction, or .csv with a line per sample."""
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
    """Refuse a small archive whose arrays would not fit in memory."""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE
    with ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > most:
            raise InputError(f"{path}: its arrays take more than {most:,} bytes, too much for this machine")


def _no_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _read_csv(path: Path, shape: Sequence[int], names: Sequence[str]) -> np.ndarray:
    """Read a CSV. Its first line is a header if none of its fields is a number and at least one is a name."""
    width = prod(shape)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        rows = [(reader.line_num, row) for row in reader]
    while rows and not rows[-1][1]:
        rows.pop()
    for line, row in rows:
        if len(row) != width:
            wanted = f"must have {width}: this run takes samples of {tuple(shape)}"
            found = f"holds one field, {_short(row[0])}" if len(row) == 1 else f"has {len(row)} fields"
            raise InputError(f"{path}: line {line} {found}, {wanted}")
    header = [field.strip() for field in rows[0][1]] if rows else []
    order: list[int] | slice = slice(None)
    if header and header == list(names):
        rows = rows[1:]
    elif header and not any(map(NUMBER.fullmatch, header)) and not all(map(NO_NAME.fullmatch, header)):
        rows, order = rows[1:], _order(path, header, names)
    elif width > 2 and header == [str(i) for i in range(width)]:
        raise InputError(
            f"{path}: line 1 numbers the columns from 0 and would count as a sample: remove it, or write 0.0 for its 0"
        )
    array = np.empty((len(rows), width), np.float32)
    with np.errstate(over="ignore"):  # reported below
        for i, (line, row) in enumerate(rows):
            array[i] = _numbers(path, line, row)
    for i, column in np.argwhere(~np.isfinite(array))[:1]:
        line, row = rows[i]
        raise InputError(f"{path}: line {line}, column {column + 1}: {_short(row[column])} is not a finite number")
    return array[:, order]


def _order(path: Path, header: list[str], names: Sequence[str]) -> list[int] | slice:
    """The positions of the header's columns, in the order of the network's inputs."""
    duplicates = [field for i, field in enumerate(header) if field in header[:i]]
    if duplicates:
        raise InputError(f"{path}: line 1 names two columns {_short(duplicates[0])}")
    if not names:
        return slice(None)
    unknown, missing = ([name for name in a if name not in b] for a, b in ((header, names), (names, header)))
    if unknown:  # then equally many are missing
        raise InputError(f"{path}: line 1: unknown columns: {_listed(unknown)}; missing: {_listed(missing)}")
    return [header.index(name) for name in names]


def _numbers(path: Path, line: int, row: Sequence[str]) -> list[float]:
    text = "".join(row)
    if text.isascii() and "_" not in text:  # float() would accept those too
        try:
            return [float(field) for field in row]
        except ValueError:
            pass
    for i, field in enumerate(row):
        if not NUMBER.fullmatch(field.strip()):
            raise InputError(f"{path}: line {line}, column {i + 1}: {_short(field)} is not a number")
    return [float(field) for field in row]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_short, names[:4])) + (", ..." if len(names) > 4 else "")


def _read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    from PIL import Image

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"{path}: this run takes samples of {tuple(shape)}, which are not images")
    with Image.open(path, formats=FORMATS) as image:
        if image.size != (shape[2], shape[1]):
            raise InputError(
                f"{path}: {image.size[0]} by {image.size[1]} pixels, this run takes {shape[2]} by {shape[1]}"
            )
        if (problem := _conversion_loss(image)) is not None:
            raise InputError(f"{path}: {problem}; must be one grey or RGB picture of 8 bits, opaque and upright")
        pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), np.float32)
    return pixels.reshape(1, shape[1], shape[2], shape[0]).transpose(0, 3, 1, 2)


def _conversion_loss(image: Any) -> str | None:
    """What a conversion to a plain picture would silently lose; None if nothing."""
    if image.mode == "P":
        return "its colours come from a palette"
    if image.has_transparency_data:
        return "it is transparent"
    if image.mode not in MODES:
        return f"its mode is {image.mode}"
    if any(";16" in str(tile) for tile in image.tile):  # Pillow drops half of them
        return "it has 16 bits a channel"
    if getattr(image, "n_frames", 1) > 1:
        return f"it holds {image.n_frames} pictures"
    if (orientation := image.getexif().get(ORIENTATION)) not in (None, 0, 1):
        return f"it needs to be rotated (EXIF orientation {orientation})"
    return None


@contextmanager
def _read_as(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a parser raises for a file that does not match its suffix into an InputError."""
    try:
        yield
    except (InputError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # from zlib, struct, PIL ...: parsers raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: cannot be read as {kind}: {reason}") from error
