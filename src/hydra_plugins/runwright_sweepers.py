"""The engine's sweepers, where Hydra looks for them: it takes plugins from this namespace package alone."""

from runwright.sweeps import grid, search


class GridSweeper(grid.GridSweeper):
    """See there."""


class OptunaSweeper(search.OptunaSweeper):
    """See there."""
