"""Hydra's grid, without composing each job once more than it takes."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hydra's own, which composes all jobs before the first one starts, to see whether they can be.

    Where the check of the command line has built a job for each value by then, that is left out.

    Args:
        max_batch_size: jobs handed to the launcher at a time; None for all.
        params: key -> values; the command line replaces some and adds others.
    """

    def __init__(self, max_batch_size: int | None, params: Any) -> None:
        if max_batch_size is not None and (not isinstance(max_batch_size, int) or max_batch_size < 1):
            raise ValueError(f"max_batch_size must be null or a whole number of at least 1, got {max_batch_size}")
        super().__init__(max_batch_size, params)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        from litmlp.runs.jobs import NoteSweep  # here, for Hydra imports its plugins at every start

        if not NoteSweep.is_checked:
            super().validate_batch_is_legal(batch)
