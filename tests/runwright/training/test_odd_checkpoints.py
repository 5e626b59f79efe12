"""A run is not resumed from a checkpoint that is sealed, but of another run, or holds something else."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, archive

from runwright.rundir.checkpoint import read_checkpoint

SMALL = ["data=iris", "data.val_size=20", "trainer.max_epochs=1", "logger=none", "model.hidden=[4]"]
CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {key}": lambda c, key=key: c.pop(key) for key in ("epoch", "global_step", "state_dict", "loops", "resume")},
    **{f"no {key}": lambda c, key=key: c.pop(key) for key in ("callbacks", "optimizer_states", "lr_schedulers")},
    **{
        f"{key}=3": lambda c, key=key: c.update({key: 3})
        for key in ("state_dict", "loops", "callbacks", "resume", "Iris")
    },
    "no version": lambda c: c.pop("pytorch-lightning_version"),
    "no optimizer": lambda c: c["optimizer_states"].clear(),
    "weights of another shape": lambda c: c["state_dict"].update(
        {key: x.new_zeros(7) for key, x in c["state_dict"].items()}
    ),
    "no weights": lambda c: c["state_dict"].clear(),
    **{
        f"resume.{key}={value}": lambda c, key=key, value=value: c["resume"].update({key: value})
        for key, value in [
            ("replaced", 3),
            ("replaced", None),
            ("random", 3),
            ("random", None),
            ("random", [3]),
            ("random", [{}]),
            ("random", [{"torch": 1, "python": 2, "numpy": 3}]),
            ("metrics", None),
            ("metrics", [3]),
            ("is_within_epoch", True),
        ]
    },
}


@pytest.fixture
def resumed(cli: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """The run, gone on with from what the change makes of its last checkpoint."""
    assert cli(*SMALL, "hydra.run.dir=run").status == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    (last.parent / "previous.ckpt").unlink(missing_ok=True)

    def call(change: Callable[[dict[str, Any]], Any]) -> Result:
        content = copy.deepcopy(read_checkpoint(last))
        change(content)
        last.write_bytes(archive(content))
        return cli("resume=run", "trainer.max_epochs=2")

    return call


@pytest.mark.parametrize("change", CHANGES)
def test_an_odd_checkpoint_costs_a_sentence(resumed: Callable[..., Result], change: str) -> None:
    result = resumed(CHANGES[change])
    assert result.status == 2, result.err
    lines = result.err.splitlines()
    assert "run/checkpoints/last.ckpt: not the state of " in lines[0]
    assert len(lines) <= 2


def test_the_runs_own_checkpoint_passes(resumed: Callable[..., Result]) -> None:
    result = resumed(lambda content: None)
    assert result.status == 0, result.err


@pytest.mark.parametrize("other", ["optimizer=adam", "model.hidden=[8]", "model.hidden=[4,4]", "data=digits"])
def test_the_checkpoint_of_another_run_costs_a_sentence(cli: Callable[..., Result], tmp_path: Path, other: str) -> None:
    assert cli(*SMALL, "hydra.run.dir=run").status == 0
    assert cli(*SMALL, other, "hydra.run.dir=other").status == 0
    shutil.copy(tmp_path / "other" / "checkpoints" / "last.ckpt", tmp_path / "run" / "checkpoints" / "last.ckpt")
    result = cli("resume=run", "trainer.max_epochs=2")
    assert result.status == 2, result.err
    assert "run/checkpoints/last.ckpt: not the state of this run: " in result.err
    assert len(result.err.splitlines()) == 2
