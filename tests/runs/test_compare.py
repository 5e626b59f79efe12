"""Rows of runs: what repeats what, and what a person reads of it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from litmlp.runs.compare import compare, find_runs, table


def write_run(folder: Path, best: float | None, overrides: list[str], **settings: Any) -> Path:
    folder.mkdir(parents=True)
    metrics = {"name": "digits", "monitor": "val_loss", "mode": "min", "best": best, "settings": settings}
    scores = {"fit": {"val_loss": best}, "test": {"test_acc": 0.5}}
    (folder / "metrics.json").write_text(json.dumps(metrics | scores))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    return folder


def test_runs_that_differ_in_seed_alone_are_one_row_with_the_std_of_a_sample(tmp_path):
    runs = [write_run(tmp_path / str(i), x, [f"seed={i}"], seed=i) for i, x in enumerate([0.1, 0.2, 0.3])]
    (row,) = compare(runs)
    assert (row.n, row.over) == (3, "seeds")
    assert row.mean["val_loss"] == pytest.approx(0.2)
    assert row.std["val_loss"] == pytest.approx(0.1)
    assert "3 seeds, ddof 1" in table([row])


def test_over_folds_the_std_is_that_of_a_whole(tmp_path):
    runs = [write_run(tmp_path / str(i), x, [f"data.fold={i}"]) for i, x in enumerate([0.1, 0.2, 0.3])]
    (row,) = compare(runs)
    assert row.std["val_loss"] == pytest.approx(math.sqrt(0.02 / 3))
    assert "3 folds, ddof 0" in table([row])


def test_runs_alike_in_what_was_typed_but_not_in_their_settings_stay_apart(tmp_path):
    runs = [write_run(tmp_path / f"{lr}", lr, [], **{"optimizer.lr": lr}) for lr in (0.2, 0.1)]
    assert [row.setting for row in compare(runs)] == ["digits optimizer.lr=0.1", "digits optimizer.lr=0.2"]


def test_a_diverged_run_comes_last_and_breaks_no_table(tmp_path):
    runs = [write_run(tmp_path / f"{i}", x, [f"optimizer.lr={i}"]) for i, x in enumerate([None, 0.3, 0.1])]
    rows = compare(runs)
    assert [row.setting for row in rows] == ["optimizer.lr=2", "optimizer.lr=1", "optimizer.lr=0"]
    assert "nan" in table(rows)


def test_a_column_of_some_runs_alone_is_shown(tmp_path):
    runs = [write_run(tmp_path / "a", 0.1, ["x=1"]), write_run(tmp_path / "b", 0.2, ["x=2"])]
    metrics = json.loads((runs[1] / "metrics.json").read_text())
    metrics["test"] = {"test_r2": 0.9}
    (runs[1] / "metrics.json").write_text(json.dumps(metrics))
    header, *_ = table(compare(runs)).splitlines()
    assert header.split() == ["setting", "val_loss", "test_r2", "test_acc", "runs"]


def test_runs_are_found_below_and_in_their_order(tmp_path):
    for i in (10, 2, 1):
        write_run(tmp_path / "sweep" / str(i), 0.1, [])
    assert [run.name for run in find_runs([tmp_path])] == ["1", "2", "10"]
