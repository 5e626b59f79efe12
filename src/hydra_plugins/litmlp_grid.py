"""Hydra's grid, without composing each job once more than it takes."""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

from litmlp.runs.jobs import NoteSweep


class GridSweeper(BasicSweeper):
    """Hydra's own, which composes all jobs before the first one starts, to see whether they can be.

    Where the check of the command line has built a job for each value by then, that is left out.
    """

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not NoteSweep.is_checked:
            super().validate_batch_is_legal(batch)
