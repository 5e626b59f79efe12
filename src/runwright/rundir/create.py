"""Directories for runs and sweeps: what others made there is neither removed nor replaced."""

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

# What a run or a sweep would replace; a train.log is added to, and an error.txt is an earlier attempt's.
OF_A_RUN = (CHECKPOINTS, METRICS, PROVENANCE, RESULTS, TABLE, REPORT, CURVES_PICTURE)
OF_A_SWEEP = (SUMMARY, SUMMARY_TABLE, REPORT, SWEEP_PICTURE, STUDY)


class Created:
    """Makes a directory, and can take it back as long as nothing was done in it.

    Args:
        path: of the directory; it may be there already.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._made = [each for each in (self.path, *self.path.parents) if not each.exists()]  # the innermost first
        self.path.mkdir(parents=True, exist_ok=True)
        self._found = {each.name for each in self.path.iterdir()}

    def remove(self, names: Iterable[str]) -> None:
        """Remove these files, unless they were there before, then each directory that was made here, if it is empty."""
        for name in set(names) - self._found:
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):  # of the first that is not empty
            for folder in self._made:
                folder.rmdir()


def check_free(directory: Path, key: str) -> None:
    """A run, or with `key="hydra.sweep.dir"` a sweep, may begin in this directory, which need not be there.

    Raises:
        OccupiedError: it holds a run or a sweep, or a file of a name that this one would replace.
    """
    is_sweep, where = key == "hydra.sweep.dir", f"{key}={directory}"
    for name, what in ((CONFIG, "run"), (SWEEP, "sweep")):
        if os.path.lexists(directory / name):
            goes_on = f", or resume={directory}" if (what == "sweep") == is_sweep else ""
            raise OccupiedError(f"{where}: holds a {what} already; choose another directory{goes_on}")
    for name in OF_A_SWEEP if is_sweep else OF_A_RUN:
        if os.path.lexists(directory / name):
            raise OccupiedError(f"{where}: holds {name}, which this would replace; choose another directory")


def claim_of(directory: Path) -> tuple[int, int] | None:
    """Tells one start of a run in this directory from the next: each writes a `config.yaml` of its own."""
    try:
        status = os.stat(directory / CONFIG)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
