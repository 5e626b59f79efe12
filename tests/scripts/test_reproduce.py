"""dev/reproduce.py at its smallest: what it writes, and what a second and an interrupted call do."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "dev" / "reproduce.py"


def reproduce(folder, *args):
    command = [sys.executable, str(SCRIPT), *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_runs_once_and_continues_where_it_was_interrupted(tmp_path):
    command = ("--quick", "--only", "weight_decay")
    done = reproduce(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "quick"
    page = (folder / "results.md").read_text()
    assert "| weight_decay: 3.0 |" in page
    assert "![weight_decay](img/weight_decay.png)" in page
    assert "- annealing: `python scripts/train.py -m sweep=annealing seed=0`" in page
    assert 0 < (folder / "img" / "weight_decay.png").stat().st_size < 100_000

    none, three = (folder / "weight_decay" / "seed=0" / f"optimizer.weight_decay={value}" for value in ("0.0", "3.0"))
    finished = {run: (run / "metrics.json").stat().st_mtime_ns for run in (none, three)}
    (three / "metrics.json").unlink()
    (three / "left_behind").touch()
    done = reproduce(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert (none / "metrics.json").stat().st_mtime_ns == finished[none]
    assert (three / "metrics.json").stat().st_mtime_ns > finished[three]
    assert not (three / "left_behind").exists()

    output = folder / "weight_decay" / "seed=0" / "output.txt"
    output.unlink()
    done = reproduce(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert not output.exists(), "a third call started a process"
    assert (folder / "results.md").read_text() == page


def test_bad_arguments_cost_one_line(tmp_path):
    for args in (["--only", "weight_dekay"], ["--seeds", "0"], ["--jobs", "many"], ["--loud"]):
        done = reproduce(tmp_path, *args)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())
