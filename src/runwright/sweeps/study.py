"""The Optuna study of a search: its name, the attribute of pruned trials, and its journal."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDY = "search"  # its name in the journal
PRUNED = "pruned"  # attribute of a trial, set if its run was stopped early by the pruner


def open_journal(path: Path) -> "BaseStorage":
    """Open a journal file. Any number of processes can add to it, and killing one leaves it readable."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(path)))
