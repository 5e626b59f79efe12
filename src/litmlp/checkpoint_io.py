"""Checkpoints as files that say when they were altered."""

import pickle
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from litmlp.durable import write

END_OF_ZIP = 22  # bytes of the record that ends an archive without comment; the last two are the comment's length
DIGEST = 64  # characters


class DamagedCheckpointError(ValueError):
    """A file that is no checkpoint, or no longer the one that was written."""


def seal(archive: bytes) -> bytes:
    """The zip archive that `torch.save` writes, with its SHA-256 as the archive's comment, where readers ignore it."""
    assert archive[-END_OF_ZIP:].startswith(b"PK\5\6")
    assert archive.endswith(b"\0\0")
    return archive[:-2] + _comment(archive)


def _comment(archive: bytes) -> bytes:
    return DIGEST.to_bytes(2, "little") + sha256(archive).hexdigest().encode()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, if its checksum holds: tensors, on the CPU, and plain values, never a pickled object.

    Raises:
        DamagedCheckpointError: with the reason.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    archive, comment = content[: -DIGEST - 2] + b"\0\0", content[-DIGEST - 2 :]
    if comment != _comment(archive):
        raise DamagedCheckpointError(f"{path}: not the file that was written; it is truncated or altered")
    try:
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{path}: holds other things than tensors and plain values") from error


class DurableCheckpoints(CheckpointIO):
    """How the trainer writes, reads and removes checkpoints.

    Where `keeps_replaced` is set, a checkpoint that a better one replaces stays until `remove_replaced` is called: as
    long as a run that is killed would go on from a state that knows the old one.
    """

    def __init__(self) -> None:
        self.keeps_replaced = False
        self.replaced: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """`storage_options={"previous": path}` keeps the file that was there under that name."""
        path = Path(path)
        path.parent.mkdir(exist_ok=True)  # not its parents: a run directory that has vanished is not made anew
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        write(path, seal(buffer.getvalue()), **(storage_options or {}))
        self.replaced.discard(path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        self.replaced.add(Path(path))
        if not self.keeps_replaced:
            self.remove_replaced()

    def remove_replaced(self) -> None:
        for path in self.replaced:
            path.unlink(missing_ok=True)
        self.replaced.clear()
