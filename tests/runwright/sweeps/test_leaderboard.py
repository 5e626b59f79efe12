"""Rows of runs: what repeats what, in which order, and what a person or a program reads of it."""

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SCRIPT

from runwright.sweeps.leaderboard import compare, find_runs
from runwright.sweeps.table import duration, problems, show

COMPARE = SCRIPT.with_stem("compare")


def write_run(folder: Path, best: float | None, overrides: list[str], mode: str = "min", **settings: Any) -> Path:
    folder.mkdir(parents=True)
    metrics = {"name": "digits", "monitor": "val_loss", "mode": mode, "best": best, "best_epoch": 3, "seconds": 2.5}
    metrics |= {"fit": {"val_loss": best}, "test": {"test_acc": 0.5}, "stopped": "", "settings": settings}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    return folder


def change(run: Path, **values: Any) -> Path:
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | values))
    return run


def write_failed(folder: Path, overrides: list[str]) -> Path:
    run = write_run(folder, 0.0, overrides)
    (run / "metrics.json").unlink()
    (run / "error.txt").write_text("data.val_size=9: too many\n\nTraceback")
    return run


def printed(rows: Any, capsys: pytest.CaptureFixture[str], **options: Any) -> list[list[str]]:
    """Cells of the plain table; the first line is the head."""
    show(rows, **options)
    return [re.split(" {2,}", line) for line in capsys.readouterr().out.splitlines()]


def test_runs_that_differ_in_seed_alone_are_one_row_with_the_std_of_a_sample(tmp_path, capsys):
    runs = [write_run(tmp_path / str(i), x, [f"seed={i}"], seed=i) for i, x in enumerate([0.1, 0.2, 0.3])]
    (row,) = compare(runs)
    assert (row.n, row.over, row.best_epoch, row.seconds) == (3, "seeds", 3, 2.5)
    assert row.mean["val_loss"] == pytest.approx(0.2)
    assert row.std["val_loss"] == pytest.approx(0.1)
    assert printed([row], capsys) == [
        ["name", "val_loss", "test_acc", "best epoch", "time", "runs"],
        ["digits", "0.2000 (0.1000)", "0.5000 (0.0000)", "3", "2.5 s", "3 seeds"],
        ["mean (std)"],
    ]


def test_over_folds_the_std_is_that_of_a_whole(tmp_path):
    runs = [write_run(tmp_path / str(i), x, [f"data.fold={i}"]) for i, x in enumerate([0.1, 0.2, 0.3])]
    (row,) = compare(runs)
    assert (row.n, row.over) == (3, "folds")
    assert row.std["val_loss"] == pytest.approx(math.sqrt(0.02 / 3))


def test_seeds_that_were_drawn_are_seeds(tmp_path):
    (row,) = compare([write_run(tmp_path / str(i), 0.1, ["seed=null"], seed=i) for i in range(2)])
    assert row.over == "seeds"


def test_columns_are_the_overrides_in_which_rows_differ(tmp_path, capsys):
    lr = [["optimizer.lr=0.1", "model.hidden=[9]"], ["optimizer.lr=0.2", "model.hidden=[9]"], ["model.hidden=[9]"]]
    runs = [write_run(tmp_path / str(i), i, typed, **{"optimizer.lr": (i + 1) / 10}) for i, typed in enumerate(lr)]
    rows = compare(runs)
    assert [row.settings for row in rows] == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}, {"optimizer.lr": 0.3}]
    assert printed(rows, capsys)[0][0] == "optimizer.lr"


def test_a_group_is_called_by_its_choice(tmp_path):
    runs = [write_run(tmp_path / name, 0.1, [f"optimizer={name}"], optimizer="SGD", **{"optimizer.nesterov": name})
            for name in ("sgd", "nesterov")]  # fmt: skip
    assert [row.settings for row in compare(runs)] == [{"optimizer": "sgd"}, {"optimizer": "nesterov"}]


def test_runs_alike_in_what_was_typed_but_not_in_their_settings_stay_apart(tmp_path):
    runs = [write_run(tmp_path / f"{lr}", lr, [], **{"optimizer.lr": lr}) for lr in (0.2, 0.1)]
    assert [row.settings for row in compare(runs)] == [{"optimizer.lr": 0.1}, {"optimizer.lr": 0.2}]


def test_the_same_settings_typed_otherwise_are_one_row(tmp_path):
    runs = [write_run(tmp_path / str(i), 0.1, typed, a=1) for i, typed in enumerate([["optimizer=sgd"], []])]
    (row,) = compare(runs)
    assert (row.n, row.over, row.settings) == (2, "", {})


@pytest.mark.parametrize(("mode", "order"), [("min", [0.1, 0.3, 0.5]), ("max", [0.5, 0.3, 0.1])])
def test_the_best_comes_first_and_a_diverged_run_last(tmp_path, mode, order):
    values = [0.3, None, 0.1, 0.5]
    rows = compare(write_run(tmp_path / f"{i}", x, [f"optimizer.lr={i}"], mode) for i, x in enumerate(values))
    assert [row.mean["val_loss"] for row in rows[:3]] == order
    assert math.isnan(rows[3].mean["val_loss"])


def test_runs_of_another_name_or_monitor_are_ranked_apart(tmp_path):
    runs = [write_run(tmp_path / str(i), best, []) for i, best in enumerate([0.1, 0.2, 0.3])]
    change(runs[0], name="iris")
    change(runs[1], monitor="val_acc")
    assert [(row.name, row.monitor) for row in compare(runs)] == [
        ("digits", "val_acc"),
        ("digits", "val_loss"),
        ("iris", "val_loss"),
    ]


def test_failed_and_unfinished_runs_count_with_those_that_they_repeat(tmp_path, capsys):
    done = [write_run(tmp_path / str(i), 0.1, [f"seed={i}", "a=1"], seed=i) for i in range(2)]
    failed = write_failed(tmp_path / "2", ["seed=2", "a=1"])
    killed = write_run(tmp_path / "3", 0.1, ["seed=3", "a=2"])
    (killed / "metrics.json").rename(killed / "config.yaml")
    rows = compare(find_runs([tmp_path]))
    assert [(row.settings, row.n, row.status) for row in rows] == [
        ({"a": "1"}, 2, "1 failed"),
        ({"a": "2"}, 0, "unfinished"),
    ]
    assert rows[0].runs == [str(run) for run in done]
    assert list(problems(rows)) == [f"{failed}: failed: data.val_size=9: too many", f"{killed}: unfinished"]
    assert printed(rows, capsys)[2][-2:] == ["0", "unfinished"]


def test_a_pruned_run_is_marked(tmp_path):
    rows = compare([change(write_run(tmp_path / "0", 0.1, []), stopped="pruned: after epoch 2")])
    assert (rows[0].n, rows[0].status, list(problems(rows))) == (1, "pruned", [])


def test_a_column_of_some_runs_alone_is_shown_and_the_monitor_first(tmp_path, capsys):
    runs = [write_run(tmp_path / "a", 0.1, ["x=1"]), write_run(tmp_path / "b", 0.2, ["x=2"])]
    change(runs[1], test={"test_r2": 0.9})
    rows = compare(runs)
    assert printed(rows, capsys)[0][:4] == ["x", "val_loss", "test_acc", "test_r2"]
    assert printed(rows, capsys, metric="test_r2")[0][:3] == ["x", "test_r2", "best epoch"]


def test_a_terminal_gets_what_fits_and_no_colour_where_none_is_wished(tmp_path, capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "60"}.items():
        monkeypatch.setenv(name, value)
    runs = [write_run(tmp_path / str(i), 0.1, [f"data.normalize=[{i}]"]) for i in range(2)]
    for run in runs:
        change(run, test={f"test_{name}": 0.5 for name in ("acc", "loss", "something_else")})
    show(compare(runs))
    coloured = capsys.readouterr().out
    assert "\x1b[1m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    show(compare([*runs, write_failed(tmp_path / "2", [])]))
    plain = re.sub(r"\x1b\[[01]m", "", capsys.readouterr().out)  # bold is no colour
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 60
    assert "[0] " in plain  # not taken for markup
    assert "no room for test_something_else, best epoch, time" in plain


def test_runs_are_found_below_and_in_their_order(tmp_path):
    for name in ("10-optimizer.lr=0.1", "2-optimizer.lr=0.3", "1"):
        write_run(tmp_path / "sweep" / name, 0.1, [])
    found = find_runs([tmp_path, tmp_path / "sweep"])
    assert [run.name for run in found] == ["1", "2-optimizer.lr=0.3", "10-optimizer.lr=0.1"]


def test_the_script_writes_its_table_for_programs(tmp_path):
    for i, best in enumerate([0.2, None]):
        write_run(tmp_path / "sweep" / str(i), best, [f"model.hidden=[{i},1]"])
    write_failed(tmp_path / "sweep" / "2", ["model.hidden=[2]"])
    call = [sys.executable, str(COMPARE), "sweep"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "sweep/2: failed: data.val_size=9: too many\n"
    with (tmp_path / "sweep" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model.hidden"], row["val_loss"], row["status"], row["runs"]) for row in rows] == [
        ("[0,1]", "0.2", "", "0"),
        ("[1,1]", "nan", "", "1"),
        ("[2]", "", "failed", "2"),
    ]
    entries = json.loads((tmp_path / "sweep" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert [entry["mean"].get("val_loss") for entry in entries] == [0.2, None, None]
    assert entries[2]["notes"] == {"2": "failed: data.val_size=9: too many"}


def test_the_script_leaves_run_directories_as_they_are(tmp_path):
    run = write_run(tmp_path / "run", 0.1, [])
    write_run(tmp_path / "other", 0.1, [])
    for folders in (["run"], ["run", "other"]):
        done = subprocess.run([sys.executable, str(COMPARE), *folders], cwd=tmp_path, capture_output=True, timeout=60)
        assert done.returncode == 0
    assert {path.name for path in run.iterdir()} == {"metrics.json", "overrides.yaml"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", "other"}


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["nowhere"], "nowhere: no such directory"),
        (["."], ".: no runs"),
        (["run", "--metric", "acc"], "--metric acc: not logged; there are: val_loss, test_acc"),
    ],
)
def test_the_script_complains_in_a_sentence(tmp_path, args, sentence):
    if "run" in args:
        write_run(tmp_path / "run", 0.1, [])
    done = subprocess.run(
        [sys.executable, str(COMPARE), *args], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{sentence}\n")


def test_any_number_of_seconds_can_be_said() -> None:
    assert [duration(seconds) for seconds in (2.54, 3725, 1e18)] == ["2.5 s", "1:02:05", "1000000000000000000.0 s"]
