"""The Optuna study of a search: where it lies, and what its trials are marked with."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDY = "search"  # its name in the journal
PRUNED = "pruned"  # attribute of a trial, by which the search knows that its run did not go to its end


def open_journal(path: Path) -> "BaseStorage":
    """A file that any number of processes can add to, and that a process killed at any moment leaves readable."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))
