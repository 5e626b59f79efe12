"""Starts a new model from the weights of an earlier run."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from runwright.config.errors import InputError
from runwright.rundir.checkpoint import find_checkpoint, read_weights

MODEL = "model."  # prefix of the model's weights in the task's state


def start_from(model: nn.Module, run_dir: Path) -> list[str]:
    """Copy the weights of a run's best checkpoint into a model, where name and shape match.

    Returns:
        Log lines that say what was copied and what was not.

    Raises:
        InputError: there is no such checkpoint, or no weight in it matches.
    """
    try:
        path = find_checkpoint(run_dir, "best")
        state = read_weights(path)["state_dict"]
    except InputError as error:  # its message begins with the directory
        raise InputError(f"init_from={error}") from error
    own = model.state_dict()
    found = {name.removeprefix(MODEL): x for name, x in state.items() if name.startswith(MODEL)}
    matching = {name: x for name, x in found.items() if name in own and x.shape == own[name].shape}
    if not matching:
        raise InputError(f"init_from={run_dir}: no weight matches; there: {_shapes(found)}; here: {_shapes(own)}")
    model.load_state_dict(matching, strict=False)
    lines = [f"init_from: {len(matching)} of {len(own)} tensors copied from {path}"]
    for what, tensors in (("newly initialised", own), ("not used", found)):
        if left := {name: x for name, x in tensors.items() if name not in matching}:
            lines.append(f"init_from: {what}: {_shapes(left)}")
    return lines


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in sorted(state.items()))[:500]
