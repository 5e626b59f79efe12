"""Checkpoint files: found in a run directory, sealed with a checksum, read without unpickling objects."""

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
END_OF_ZIP = 22  # bytes of the record that ends an archive without comment; the last two are the comment's length
DIGEST = 64  # characters
SHARE = 3  # of this machine's memory one part in so many is as much as a checkpoint may take: it is held twice


class DamagedCheckpointError(ValueError):
    """A file that is no checkpoint, or no longer the one that was written."""


def seal(archive: bytes) -> bytes:
    """The zip archive that `torch.save` writes, with its SHA-256 as the archive's comment, where readers ignore it."""
    assert archive[-END_OF_ZIP:].startswith(b"PK\5\6")
    assert archive.endswith(b"\0\0")
    return archive[:-2] + _comment(sha256(archive).hexdigest())


def _comment(digest: str) -> bytes:
    return DIGEST.to_bytes(2, "little") + digest.encode()


def _most() -> int:
    """Bytes that a checkpoint may have here."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, if its checksum holds: tensors, on the CPU, and plain values, never a pickled object.

    Raises:
        DamagedCheckpointError: with the reason.
        InputError: it is not to be read (`open_inside`).
        OSError: it cannot be read.
    """
    import torch  # here, for this room is imported by what answers before torch is

    content = read_inside(path, path.parent, most := _most())
    digest = sha256(memoryview(content)[: -DIGEST - 2])
    digest.update(b"\0\0")
    if content[-DIGEST - 2 :] != _comment(digest.hexdigest()):
        raise DamagedCheckpointError(f"{path}: not the file that was written; it is truncated or altered")
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            size = sum(part.file_size for part in archive.infolist())  # torch.save compresses nothing, others may
        if size <= most:
            checkpoint = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever an archive that was made up makes its parsers raise
        raise DamagedCheckpointError(f"{path}: holds other things than tensors and plain values") from error
    if size > most or not isinstance(checkpoint, dict):
        raise DamagedCheckpointError(f"{path}: {f'takes more than {most:,} bytes' if size > most else 'no checkpoint'}")
    return checkpoint


def find_checkpoint(run_dir: Path, which: str) -> Path:
    """The run's best checkpoint, or its last, which is also the best where none was chosen.

    Raises:
        InputError: there is none.
    """
    folder = run_dir / CHECKPOINTS
    best = sorted(folder.glob(BEST))
    if recorded := named_in(folder, read_metrics(run_dir).get("best_checkpoint")):
        best += [recorded] if recorded.is_file() else []
    path = best[-1] if best and which == "best" else folder / LAST
    try:
        open_inside(path, run_dir, _most()).close()
    except FileNotFoundError:
        said = f"{path}: there is no such checkpoint" if folder.is_dir() else f"{run_dir}: no checkpoints"
        raise InputError(said) from None
    return path


def named_in(folder: Path, recorded: object) -> Path | None:
    """The checkpoint of a recorded path's name in this folder; None of what is no such name.

    Of a path that is read in a file nothing but the name counts: the run may have been moved, or be a stranger's.
    """
    name = PurePath(recorded).name if isinstance(recorded, str) else ""
    return folder / name if name.endswith(SUFFIX) and name.isprintable() else None


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
