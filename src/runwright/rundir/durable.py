"""Files that are whole or not there, whatever happens while they are written."""

import os
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: bytes, previous: Path | None = None, exclusive: bool = False) -> None:
    """Write or replace a file: on the disk before this returns, and as it was before where this fails.

    The file that was there is kept as `previous`, if that is given. `exclusive` fails where there is one: of several
    processes that try at once, one succeeds.

    Raises:
        OSError: with the file's name.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial" if exclusive else f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a process that was killed, or a stranger's link to somewhere else
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
        with suppress(OSError):  # of a directory that has vanished, or may not be written: what is said next
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
