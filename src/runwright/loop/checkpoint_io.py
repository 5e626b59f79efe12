"""How the trainer writes, reads and removes checkpoint files."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO

from runwright.rundir.checkpoint import read_checkpoint, seal
from runwright.rundir.durable import write


class DurableCheckpoints(CheckpointIO):
    """Writes checkpoints atomically, with a checksum, and reads them without unpickling objects.

    With `keeps_replaced`, a checkpoint that a better one replaces is kept until `remove_replaced` is called. Until then
    a run that is killed would resume from a state that still refers to the old file.
    """

    def __init__(self) -> None:
        self.keeps_replaced = False
        self.replaced: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """`storage_options={"previous": path}` keeps the file being replaced under that path."""
        path = Path(path)
        path.parent.mkdir(exist_ok=True)  # no parents: do not recreate a run directory that was deleted
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        write(path, seal(buffer.getvalue()), **(storage_options or {}))
        self.replaced.discard(path)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        self.replaced.add(Path(path))
        if not self.keeps_replaced:
            self.remove_replaced()

    def remove_replaced(self) -> None:
        for path in self.replaced:
            path.unlink(missing_ok=True)
        self.replaced.clear()
