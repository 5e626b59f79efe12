"""What a reopened run says of samples in files."""

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
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")  # whatever the file is called: some of Pillow's run programs
MODES = ("1", "L", "RGB")  # of Pillow's: whatever else loses something where it is made one of these
ORIENTATION = 274  # EXIF's tag
CHUNK = 1000  # samples at a time
SHARE = 4  # of this machine's memory one part in so many is as much as the samples of an archive may take

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NO_NAME = re.compile(r"([+-]?\.?\d.*|[\W_]*|n/?a|nan|none|null|missing|[+-]?inf(inity)?)", re.IGNORECASE | re.DOTALL)
"""What stands in a field for a number that is missing or written in another way: hex, a decimal comma, a unit."""


def predict(run: Reopened, x: Tensor) -> list[Prediction]:
    """What the run's task says of raw x, (N, *sample_shape).

    Raises:
        InputError: an output is not finite, of which argmax would make a class.
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
    """Samples as (N, *shape), with values on the scale of the data set's own files.

    Args:
        path: a CSV of one sample a line, with or without a header; an array of (N, *shape), which may be flat or lack
            the ones, as .npy or as the only array of an .npz; or an image, which is one sample.
        shape: of one sample.
        max_value: what white in an image becomes.
        feature_names: in the order of a sample's values, where they are known; a CSV's header must name them.

    Raises:
        InputError: it is something else, or of another shape, or holds what is no finite number.
    """
    kind = path.suffix.lower()
    with _read_as(path, kind):
        if kind == ".csv":
            array = _read_csv(path, shape, feature_names)
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


def _read_csv(path: Path, shape: Sequence[int], names: Sequence[str]) -> np.ndarray:
    """A line none of whose fields is a number, and one at least a name, is a header if it is the first."""
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
    with np.errstate(over="ignore"):  # found below
        for i, (line, row) in enumerate(rows):
            array[i] = _numbers(path, line, row)
    for i, column in np.argwhere(~np.isfinite(array))[:1]:
        line, row = rows[i]
        raise InputError(f"{path}: line {line}, column {column + 1}: {_short(row[column])} is no finite number")
    return array[:, order]


def _order(path: Path, header: list[str], names: Sequence[str]) -> list[int] | slice:
    """Of the header's columns, as the network takes them."""
    twice = [field for i, field in enumerate(header) if field in header[:i]]
    if twice:
        raise InputError(f"{path}: line 1 names two columns {_short(twice[0])}")
    if not names:
        return slice(None)
    unknown, missing = ([name for name in a if name not in b] for a, b in ((header, names), (names, header)))
    if unknown:  # then as many are missing
        raise InputError(f"{path}: line 1: unknown columns: {_listed(unknown)}; missing: {_listed(missing)}")
    return [header.index(name) for name in names]


def _numbers(path: Path, line: int, row: Sequence[str]) -> list[float]:
    text = "".join(row)
    if text.isascii() and "_" not in text:  # of which float() would make numbers too
        try:
            return [float(field) for field in row]
        except ValueError:
            pass
    for i, field in enumerate(row):
        if not NUMBER.fullmatch(field.strip()):
            raise InputError(f"{path}: line {line}, column {i + 1}: {_short(field)} is no number")
    return [float(field) for field in row]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_short, names[:4])) + (", ..." if len(names) > 4 else "")


def _read_image(path: Path, shape: Sequence[int]) -> np.ndarray:
    from PIL import Image

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"{path}: this run takes samples of {tuple(shape)}, which are no images")
    with Image.open(path, formats=FORMATS) as image:
        if image.size != (shape[2], shape[1]):
            raise InputError(
                f"{path}: {image.size[0]} by {image.size[1]} pixels, this run takes {shape[2]} by {shape[1]}"
            )
        if (other := _other_than_plain(image)) is not None:
            raise InputError(f"{path}: {other}; must be one grey or RGB picture of 8 bits, opaque and upright")
        pixels = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), np.float32)
    return pixels.reshape(1, shape[1], shape[2], shape[0]).transpose(0, 3, 1, 2)


def _other_than_plain(image: Any) -> str | None:
    """What of a picture would be lost without a word."""
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
        return f"it is to be turned (EXIF orientation {orientation})"
    return None


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
