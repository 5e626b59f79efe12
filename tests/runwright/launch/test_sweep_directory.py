"""A sweep has one directory, whatever its jobs vary, and its table and its resumption take all of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "logger=none"]
BY_TRAINING = ["callbacks=no_validation", "monitor=train_loss", "data.val_size=0"]
SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.num_trials=2", "hydra.sweeper.pruner=null"]


@pytest.mark.parametrize(
    "varied",
    [
        ["data=digits,iris", *BY_TRAINING],
        ["data=iris", "name=a,b", *BY_TRAINING],
        ["data=digits,iris", "name=a,b", *BY_TRAINING],
        ["experiment=iris_input_dropout,iris_hidden_dropout"],
        ["data=digits,iris", *BY_TRAINING, *SEARCH],
        ["data=iris", "name=a,b", *BY_TRAINING, *SEARCH],
        ["data=iris", "name=a,b", *BY_TRAINING, "hydra.sweep.dir=here"],
    ],
)
def test_a_sweep_has_one_directory(cli: Callable[..., Result], tmp_path: Path, varied: list[str]) -> None:
    if SEARCH[0] in varied:
        pytest.importorskip("optuna")
    made = cli("-m", *SMALL, *varied)
    assert made.status == 0, made.err
    (command,) = tmp_path.rglob("sweep.yaml")
    sweep = command.parent
    assert {each.parent for each in made.run_dirs} == {sweep}
    rows = json.loads((sweep / "summary.json").read_text())
    assert sorted(run for row in rows for run in row["runs"]) == sorted(each.name for each in made.run_dirs)

    before = {each: (each / "metrics.json").stat().st_mtime_ns for each in made.run_dirs}
    again = cli(f"resume={sweep}")
    assert again.status == 0, again.err
    assert again.run_dirs == []
    assert before == {each: (each / "metrics.json").stat().st_mtime_ns for each in made.run_dirs}
    assert not [each for each in (tmp_path / "sweeps").glob("*/*") if each != sweep]
