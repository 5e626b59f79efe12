"""Directories for runs and sweeps. Files that were there before are neither removed nor replaced."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from runwright.config.errors import OccupiedError
from runwright.rundir.files import (
    CHECKPOINTS,
    CONFIG,
    CURVES_PICTURE,
    METRICS,
    PROVENANCE,
    REPORT,
    RESULTS,
    STUDY,
    SUMMARY,
    SUMMARY_TABLE,
    SWEEP,
    SWEEP_PICTURE,
    TABLE,
)

# Files that a run or a sweep would replace. A train.log is appended to, and an error.txt is from an earlier attempt.
OF_A_RUN = (CHECKPOINTS, METRICS, PROVENANCE, RESULTS, TABLE, REPORT, CURVES_PICTURE)
OF_A_SWEEP = (SUMMARY, SUMMARY_TABLE, REPORT, SWEEP_PICTURE, STUDY)


class Created:
    """Creates a directory, and can remove it again while it is still empty.

    Args:
        path: the directory; it may exist already.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._made = [each for each in (self.path, *self.path.parents) if not each.exists()]  # innermost first
        self.path.mkdir(parents=True, exist_ok=True)
        self._found = {each.name for each in self.path.iterdir()}

    def remove(self, names: Iterable[str]) -> None:
        """Remove these files unless they were there before, then the directories created here that are empty."""
        for name in set(names) - self._found:
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # raised by the first that is not empty
            for folder in self._made:
                folder.rmdir()


def check_free(directory: Path, key: str) -> None:
    """Check that a run, or with `key="hydra.sweep.dir"` a sweep, can start in this directory, which need not exist.

    Raises:
        OccupiedError: it holds a run or a sweep, or a file that the new one would replace.
    """
    is_sweep, where = key == "hydra.sweep.dir", f"{key}={directory}"
    for name, what in ((CONFIG, "run"), (SWEEP, "sweep")):
        if os.path.lexists(directory / name):
            hint = f", or resume={directory}" if (what == "sweep") == is_sweep else ""
            raise OccupiedError(f"{where}: holds a {what} already; choose another directory{hint}")
    for name in OF_A_SWEEP if is_sweep else OF_A_RUN:
        if os.path.lexists(directory / name):
            raise OccupiedError(f"{where}: holds {name}, which this would replace; choose another directory")


def claim_of(directory: Path) -> tuple[int, int] | None:
    """Identify the start of a run that owns this directory, by its new `config.yaml`; None if there is none."""
    try:
        status = os.stat(directory / CONFIG)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
