"""A start that is refused, or meets another's directory, leaves all that it did not make as it was."""

import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock

from runwright.config.errors import OccupiedError
from runwright.launch.sharing import SLOT, remove_slots
from runwright.rundir.create import OF_A_RUN, OF_A_SWEEP, Created, check_free, claim_of
from runwright.rundir.durable import write

SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "model.hidden=[8]", "logger=none", "report=false"]
REFUSED = {
    "by the data": "data.val_size=70000",
    "by a constructor": "model.dropout=2",
    "by a check": "callbacks.early_stopping.monitor=nothing",
    "after the data": "trainer.limit_train_batches=0.0001",
}
TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]


def contents(folder: Path) -> dict[str, object]:
    """Of every file below a folder, and when it was last written."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        found[str(path.relative_to(folder))] = (path.read_bytes(), status.st_mtime_ns) if is_file else None
    return found


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
def test_a_refused_start_leaves_nothing_and_takes_nothing(cli, tmp_path, monkeypatch, bad):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for place, kept in ((".", here), ("new/deeply/nested", here)):
        result = cli(*SMALL, bad, f"hydra.run.dir={place}")
        assert result.status == 2, result.err
        assert kept.is_dir()
        assert not list(here.iterdir())
    (here / "train.log").write_text("mine")
    (here / "old").mkdir()
    before = contents(here)
    for place in (".", "old", "old/new"):
        assert cli(*SMALL, bad, f"hydra.run.dir={place}").status == 2
        assert contents(here) == before
    assert cli("-m", *SMALL, bad, "hydra.sweep.dir=.").status in (1, 2)  # its jobs' failures are recorded in jobs
    assert (here / "train.log").read_text() == "mine"


@pytest.fixture
def failed(cli, tmp_path: Path) -> Path:
    """The directory of a run that failed before it had begun."""
    folder = tmp_path / "failed"
    folder.mkdir()
    (folder / "error.txt").write_text("ZeroDivisionError: crash\n\nTraceback")
    (folder / "overrides.yaml").write_text("[]\n")
    (folder / "train.log").write_text("failed\n")
    return folder


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED)
def test_a_refused_start_leaves_a_failed_runs_files(cli, failed, bad):
    before = contents(failed)
    result = cli(*SMALL, bad, f"hydra.run.dir={failed}")
    assert result.status == 2, result.err
    assert contents(failed) == before


def test_a_good_start_takes_a_failed_runs_place(cli, failed):
    assert cli(*SMALL, f"hydra.run.dir={failed}").status == 0
    assert not (failed / "error.txt").exists()
    assert (failed / "metrics.json").is_file()


COLLISIONS = {
    "another run": ["seed=1"],
    "bad input": ["data.val_size=70000"],
    "what crashes": ["+callbacks.mine._target_=crash.crash"],
    "weights": ["init_from=there"],
    "two processes": TWO,
    "resumed with other values": ["resume=auto", "optimizer.lr=0.7"],
    "resumed with what crashes": ["resume=auto", "+callbacks.mine._target_=crash.crash"],
    "resumed in two processes, other values": ["resume=auto", "optimizer.lr=0.7", *TWO],
}


def test_a_finished_run_is_left_as_it_is(cli, tmp_path, monkeypatch):
    (tmp_path / "crash.py").write_text("def crash(*args, **kwargs):\n    raise Exception('crash')\n")
    monkeypatch.syspath_prepend(tmp_path)
    there = cli(*SMALL, "hydra.run.dir=there").run_dir
    before = contents(there)
    for name, args in COLLISIONS.items():
        result = cli(*SMALL, *args, "hydra.run.dir=there")
        assert result.status == (1 if "crashes" in name and "resumed" in name else 2), (name, result.err)
        assert contents(there) == before, name
        assert ("Traceback" in result.err) == (result.status == 1), name
        assert "there" in result.err or result.status == 1, name
    sweep = cli("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=there")
    assert sweep.status == 2
    assert "hydra.sweep.dir=there: holds a run already" in sweep.err
    assert contents(there) == before


def test_the_jobs_of_a_sweep_leave_another_sweeps_runs(cli, tmp_path, monkeypatch):
    assert cli("-m", *SMALL, "seed=1,2", "hydra.sweep.dir=there").status == 0
    before = contents(tmp_path / "there")
    again = cli("-m", *SMALL, "seed=1,2", "optimizer.lr=0.7", "hydra.sweep.dir=there")
    assert again.status == 2
    assert "hydra.sweep.dir=there: holds a sweep already; choose another directory, or resume=there" in again.err
    assert contents(tmp_path / "there") == before
    inside = cli(*SMALL, "hydra.run.dir=there")
    assert inside.status == 2
    assert "there: holds a sweep already; choose another directory\n" in inside.err
    assert contents(tmp_path / "there") == before
    runs = {name: before[name] for name in before if name.startswith(("0-", "1-"))}
    changed = cli("-m", *SMALL, "seed=1,2", "optimizer.lr=0.7", "hydra.sweep.dir=there", "resume=auto")
    assert changed.status == 2
    assert "2 of 2 jobs were refused, the first: " in changed.err
    assert "optimizer.lr" in changed.err
    assert {name: each for name, each in contents(tmp_path / "there").items() if name in runs} == runs
    assert not list((tmp_path / "there").glob("*/error.txt"))


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_run_replaces_no_file_of_its_names(cli, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OccupiedError, match=f"holds {name}"):
        check_free(tmp_path, "hydra.run.dir")
    if name == "metrics.csv":  # which Lightning's logger would remove
        result = cli(*SMALL, "logger=csv", "hydra.run.dir=.")
        assert result.status == 2
        assert result.err.endswith(": holds metrics.csv, which this would replace; choose another directory\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", OF_A_SWEEP)
def test_a_sweep_replaces_no_file_of_its_names(tmp_path, name):
    check_free(tmp_path / "new", "hydra.sweep.dir")
    (tmp_path / name).write_text("mine")
    with pytest.raises(OccupiedError, match=f"hydra.sweep.dir=.*holds {name}"):
        check_free(tmp_path, "hydra.sweep.dir")


def test_what_was_made_is_taken_back_and_no_more(tmp_path):
    for place in ("a/b/c", "a/b/c/", "x/../y"):
        created = Created(tmp_path / place)
        (tmp_path / place / "train.log").touch()
        created.remove(["train.log", "other"])
    assert {path.name for path in tmp_path.rglob("*")} <= {"x"}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "train.log").touch()
    created = Created(tmp_path / "old" / "new")
    (tmp_path / "old" / "new" / "mine").touch()
    created.remove(["train.log"])
    assert (tmp_path / "old" / "new" / "mine").exists()
    Created(tmp_path / "old").remove(["train.log"])
    assert (tmp_path / "old" / "train.log").exists()


def test_each_claim_is_another(tmp_path):
    assert claim_of(tmp_path) is None
    claims = set()
    for _ in range(5):
        write(tmp_path / "config.yaml", b"the same")
        claims.add(claim_of(tmp_path))
    assert len(claims) == 5
    assert claim_of(tmp_path) in claims


def test_a_slot_that_another_sweep_holds_stays(tmp_path):
    for number in range(2):
        (tmp_path / SLOT.format(number)).touch()
    with FileLock(tmp_path / SLOT.format(1)):
        remove_slots(tmp_path)
        assert os.listdir(tmp_path) == [SLOT.format(1)]
