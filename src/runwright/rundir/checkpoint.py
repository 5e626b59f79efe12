"""Checkpoint files: finding them in a run directory, adding a checksum, reading them without unpickling objects."""

import os
import zipfile
from hashlib import sha256
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from runwright.config.errors import InputError
from runwright.rundir.files import BEST, CHECKPOINTS, LAST
from runwright.rundir.read import open_inside, read_inside, read_metrics

SUFFIX = ".ckpt"
END_OF_ZIP = 22  # bytes of a zip archive's last record if it has no comment; the last two are the comment's length
DIGEST = 64  # characters of a SHA-256
SHARE = 3  # a checkpoint may take at most 1/SHARE of this machine's memory, because it is in memory twice


class DamagedCheckpointError(ValueError):
    """The file is not a checkpoint, or has changed since it was written."""


def seal(archive: bytes) -> bytes:
    """Add to the zip archive from `torch.save` its SHA-256, as the archive's comment, which readers ignore."""
    assert archive[-END_OF_ZIP:].startswith(b"PK\5\6")
    assert archive.endswith(b"\0\0")
    return archive[:-2] + _comment(sha256(archive).hexdigest())


def _comment(digest: str) -> bytes:
    return DIGEST.to_bytes(2, "little") + digest.encode()


def _largest() -> int:
    """Largest size in bytes of a checkpoint on this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint if its checksum is right: tensors (on the CPU) and plain values, never a pickled object.

    Raises:
        DamagedCheckpointError: with the reason.
        InputError: `open_inside` refuses the file.
        OSError: it cannot be read.
    """
    import torch  # not at the top: commands that need no torch import this module

    content = read_inside(path, path.parent, largest := _largest())
    digest = sha256(memoryview(content)[: -DIGEST - 2])
    digest.update(b"\0\0")
    if content[-DIGEST - 2 :] != _comment(digest.hexdigest()):
        raise DamagedCheckpointError(f"{path}: not the file that was written; it is truncated or altered")
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            size = sum(part.file_size for part in archive.infolist())  # torch.save does not compress, but others may
        if size <= largest:
            checkpoint = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a forged archive can make its parsers raise anything
        raise DamagedCheckpointError(f"{path}: holds something other than tensors and plain values") from error
    if size > largest:
        raise DamagedCheckpointError(f"{path}: takes more than {largest:,} bytes")
    if not isinstance(checkpoint, dict):
        raise DamagedCheckpointError(f"{path}: not a checkpoint")
    return checkpoint


def find_checkpoint(run_dir: Path, which: str) -> Path:
    """The run's best checkpoint (`which="best"`) or its last one, which is also used if no best one was saved.

    Raises:
        InputError: there is none.
    """
    folder = run_dir / CHECKPOINTS
    best = sorted(folder.glob(BEST))
    if recorded := named_in(folder, read_metrics(run_dir).get("best_checkpoint")):
        best += [recorded] if recorded.is_file() else []
    path = best[-1] if best and which == "best" else folder / LAST
    try:
        open_inside(path, run_dir, _largest()).close()
    except FileNotFoundError:
        message = f"{path}: there is no such checkpoint" if folder.is_dir() else f"{run_dir}: no checkpoints"
        raise InputError(message) from None
    return path


def named_in(folder: Path, recorded: object) -> Path | None:
    """The path in this folder of a checkpoint recorded in a file; None if it is not the name of a checkpoint.

    Only the name of the recorded path is used: the run may have been moved, or be someone else's.
    """
    name = PurePath(recorded).name if isinstance(recorded, str) else ""
    return folder / name if name.endswith(SUFFIX) and name.isprintable() else None


def read_weights(path: Path) -> dict[str, Any]:
    """Load a checkpoint and check that its `state_dict` holds only tensors.

    Raises:
        InputError: it is damaged, or not a run's checkpoint.
    """
    from torch import Tensor

    try:
        checkpoint = read_checkpoint(path)
        if all(isinstance(x, Tensor) for x in checkpoint["state_dict"].values()):
            return checkpoint
    except DamagedCheckpointError as error:
        raise InputError(str(error)) from error
    except (ValueError, LookupError, EOFError, TypeError, AttributeError, MemoryError):  # forged
        pass
    raise InputError(f"{path}: not a run's checkpoint")
