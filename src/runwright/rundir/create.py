"""A directory made for a run or a sweep, of which only what this process made is ever removed."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


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
