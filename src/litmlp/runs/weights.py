"""The weights that a run directory holds, and a new model that starts from them."""

import glob
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from litmlp.callbacks.checkpoints import LAST
from litmlp.checkpoint_io import DamagedCheckpointError, read_checkpoint
from litmlp.runs.compare import read_metrics
from litmlp.runs.errors import InputError

log = logging.getLogger(__name__)

MODEL = "model."  # how the names of its weights begin among the task's


def start_from(model: nn.Module, run_dir: Path) -> None:
    """Copy into a model the weights of a run's best checkpoint, where name and shape are the same; say which are not.

    Raises:
        InputError: there is no such checkpoint, or nothing in it fits.
    """
    try:
        path = find_checkpoint(run_dir, "best")
        state = read(path)["state_dict"]
    except InputError as error:  # which begins with the directory
        raise InputError(f"init_from={error}") from error
    own = model.state_dict()
    found = {name.removeprefix(MODEL): x for name, x in state.items() if name.startswith(MODEL)}
    fitting = {name: x for name, x in found.items() if name in own and x.shape == own[name].shape}
    if not fitting:
        raise InputError(f"init_from={run_dir}: no weight there fits; there: {_shapes(found)}; here: {_shapes(own)}")
    model.load_state_dict(fitting, strict=False)
    log.info("init_from: %d of %d tensors come from %s", len(fitting), len(own), path)
    for what, state in (("not there", own), ("not taken", found)):
        if left := {name: x for name, x in state.items() if name not in fitting}:
            log.info("init_from: %s: %s", what, _shapes(left))


def find_checkpoint(run_dir: Path, which: str) -> Path:
    """The run's best checkpoint, or its last, which is also the best where none was chosen.

    Raises:
        InputError: there is none.
    """
    folder = run_dir / "checkpoints"
    best = sorted(folder.glob("best-*.ckpt"))
    recorded = read_metrics(run_dir).get("best_checkpoint")
    if isinstance(recorded, str):  # its name alone, for the directory may have been moved
        best += folder.glob(glob.escape(Path(recorded).name))
    path = best[-1] if best and which == "best" else folder / LAST
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint" if folder.is_dir() else f"{run_dir}: no checkpoints")
    return path


def read(path: Path) -> dict[str, Any]:
    """A checkpoint whose `state_dict` holds tensors.

    Raises:
        InputError: it is damaged, or something else.
    """
    try:
        checkpoint = read_checkpoint(path)
        if all(isinstance(x, Tensor) for x in checkpoint["state_dict"].values()):
            return checkpoint
    except DamagedCheckpointError as error:
        raise InputError(str(error)) from error
    except (ValueError, LookupError, EOFError, TypeError, AttributeError, MemoryError):  # made to look like one
        pass
    raise InputError(f"{path}: not a run's checkpoint")


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in sorted(state.items()))[:500]
