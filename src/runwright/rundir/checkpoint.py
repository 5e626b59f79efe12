"""Checkpoint files: found in a run directory, sealed with a checksum, read without unpickling objects."""

import glob
import pickle
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from runwright.config.errors import InputError
from runwright.rundir.files import BEST, CHECKPOINTS, LAST
from runwright.rundir.read import read_metrics

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
    import torch  # here, for this room is imported by what answers before torch is

    content = path.read_bytes()
    archive, comment = content[: -DIGEST - 2] + b"\0\0", content[-DIGEST - 2 :]
    if comment != _comment(archive):
        raise DamagedCheckpointError(f"{path}: not the file that was written; it is truncated or altered")
    try:
        return torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{path}: holds other things than tensors and plain values") from error


def find_checkpoint(run_dir: Path, which: str) -> Path:
    """The run's best checkpoint, or its last, which is also the best where none was chosen.

    Raises:
        InputError: there is none.
    """
    folder = run_dir / CHECKPOINTS
    best = sorted(folder.glob(BEST))
    recorded = read_metrics(run_dir).get("best_checkpoint")
    if isinstance(recorded, str):  # its name alone, for the directory may have been moved
        best += folder.glob(glob.escape(Path(recorded).name))
    path = best[-1] if best and which == "best" else folder / LAST
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint" if folder.is_dir() else f"{run_dir}: no checkpoints")
    return path


def read_weights(path: Path) -> dict[str, Any]:
    """A checkpoint whose `state_dict` holds tensors.

    Raises:
        InputError: it is damaged, or something else.
    """
    from torch import Tensor

    try:
        checkpoint = read_checkpoint(path)
        if all(isinstance(x, Tensor) for x in checkpoint["state_dict"].values()):
            return checkpoint
    except DamagedCheckpointError as error:
        raise InputError(str(error)) from error
    except (ValueError, LookupError, EOFError, TypeError, AttributeError, MemoryError):  # made to look like one
        pass
    raise InputError(f"{path}: not a run's checkpoint")
