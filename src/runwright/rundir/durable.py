"""Atomic writing: a file is complete or absent, whatever happens while it is written."""

import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: bytes, previous: Path | None = None, exclusive: bool = False) -> None:
    """Write or replace a file. It is on disk when this returns, and unchanged if this fails.

    If `previous` is given, the old file is kept under that name. With `exclusive`, it is an error if the file exists:
    if several processes try at once, one succeeds.

    Raises:
        OSError: with the file's name.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial" if exclusive else f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # left by a killed process, or someone else's link to another place
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        if exclusive:
            os.link(partial, path)
            partial.unlink()
        else:
            partial.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with suppress(OSError):  # the directory is gone or read-only: raised below
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
