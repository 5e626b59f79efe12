"""MNIST and Fashion-MNIST, from local files or downloaded by torchvision."""

import gzip
import math
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .in_memory import InMemoryData, Samples

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class MNIST(InMemoryData):
    """60,000 training and 10,000 test images of handwritten digits, 28 by 28 (LeCun et al., 1998).

    Args:
        root: folder with the four files, plain or gzipped, or with torchvision's layout `<name>/raw/`; if it has
            neither, torchvision downloads into that layout.
        **options: see `InMemoryData`.

    Raises:
        FileNotFoundError: from `prepare_data`, if the files are missing and cannot be downloaded.
        ValueError: from `setup`, if a file is truncated or does not hold what its name says.
    """

    sample_shape = (1, 28, 28)
    num_outputs = 10
    max_value = 255.0
    name = "MNIST"
    system_folder: str | None = None
    """The folder of a Linux distribution's package with the files."""

    def __init__(self, root: str = "data", **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()

    def prepare_data(self) -> None:
        if self._find() is None:
            self._download()

    def load(self) -> tuple[Samples, Samples]:
        folder = self._find()
        if folder is None:
            raise FileNotFoundError(f"root={self.root} does not hold the files of {self.name}")
        train_x, train_y, test_x, test_y = (read_idx(_file(folder, name)) for name in FILES)
        for part, x, y in (("train", train_x, train_y), ("t10k", test_x, test_y)):
            if x.shape[1:] != self.sample_shape[1:] or y.ndim != 1 or len(x) != len(y):
                raise ValueError(f"{folder}: {part} files hold {tuple(x.shape)} images and {tuple(y.shape)} labels")
            if len(y) and int(y.max()) >= self.num_outputs:
                raise ValueError(
                    f"{folder}: {part} labels go up to {int(y.max())}, there are {self.num_outputs} classes"
                )
        return (
            Samples(train_x.unsqueeze(1), train_y.long()),
            Samples(test_x.unsqueeze(1), test_y.long()),
        )

    def _find(self) -> Path | None:
        """The folder that holds all four files, or None."""
        system = [] if self.system_folder is None else [Path(self.system_folder)]
        # root itself comes last: both data sets use the same file names, so it may hold the other one.
        folders = [self.root / self.name / "raw", *system, self.root]
        return next((folder for folder in folders if all(_file(folder, name) for name in FILES)), None)

    def _download(self) -> None:
        from torchvision import datasets

        folder = self.root / self.name / "raw"
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        before = set(folder.glob("*"))
        try:
            getattr(datasets, self.name)(self.root, download=True)  # checks each file's MD5
        except (OSError, RuntimeError, HTTPException) as error:
            for path in set(folder.glob("*")) - before:  # a file that failed the check would be used next time
                path.unlink()
            for path in created:
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(": ")
            raise FileNotFoundError(
                f"root={self.root} does not hold {self.name}, and it cannot be downloaded ({reason})\n"
                f"put {', '.join(FILES)} (plain or .gz) into {folder.absolute()}"
            ) from error


class FashionMNIST(MNIST):
    """A drop-in replacement for MNIST: 28 by 28 images of ten kinds of clothing (Xiao, Rasul and Vollgraf, 2017).

    Debian's package `dataset-fashion-mnist` is found too.
    """

    name = "FashionMNIST"
    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    system_folder = "/usr/share/datasets/fashion-mnist"


def read_idx(path: Path | None) -> Tensor:
    """Read an IDX file of unsigned bytes, plain or gzipped, as a uint8 tensor of the shape in its header."""
    assert path is not None
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    num_dims = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_dims, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * num_dims)
    if len(values) != math.prod(shape):
        raise ValueError(
            f"{path} is truncated: {len(values):,} of {math.prod(shape):,} values; delete it to download it again"
        )
    return torch.from_numpy(values.reshape(shape).copy())


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
