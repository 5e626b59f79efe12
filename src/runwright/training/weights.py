"""A new model that starts from the weights of an earlier run."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from runwright.config.errors import InputError
from runwright.rundir.checkpoint import find_checkpoint, read_weights

MODEL = "model."  # how the names of its weights begin among the task's


def start_from(model: nn.Module, run_dir: Path) -> list[str]:
    """Copy into a model the weights of a run's best checkpoint, where name and shape are the same.

    Returns:
        Lines that say which are and which are not, for a log.

    Raises:
        InputError: there is no such checkpoint, or nothing in it fits.
    """
    try:
        path = find_checkpoint(run_dir, "best")
        state = read_weights(path)["state_dict"]
    except InputError as error:  # which begins with the directory
        raise InputError(f"init_from={error}") from error
    own = model.state_dict()
    found = {name.removeprefix(MODEL): x for name, x in state.items() if name.startswith(MODEL)}
    fitting = {name: x for name, x in found.items() if name in own and x.shape == own[name].shape}
    if not fitting:
        raise InputError(f"init_from={run_dir}: no weight there fits; there: {_shapes(found)}; here: {_shapes(own)}")
    model.load_state_dict(fitting, strict=False)
    lines = [f"init_from: {len(fitting)} of {len(own)} tensors come from {path}"]
    for what, state in (("not there", own), ("not taken", found)):
        if left := {name: x for name, x in state.items() if name not in fitting}:
            lines.append(f"init_from: {what}: {_shapes(left)}")
    return lines


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in sorted(state.items()))[:500]
