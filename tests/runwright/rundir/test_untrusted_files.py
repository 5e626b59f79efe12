"""What reads a run directory reads plain files of sane size that lie in it, and what writes into one stays there."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SCRIPT, archive
from toy import make_run

from runwright.config.errors import InputError
from runwright.reopen import predict
from runwright.rundir import checkpoint
from runwright.rundir.checkpoint import DamagedCheckpointError, find_checkpoint, named_in, read_checkpoint
from runwright.rundir.curves import read_curves
from runwright.rundir.read import (
    open_inside,
    read_error,
    read_metrics,
    read_overrides,
    read_provenance,
    read_results,
    read_values,
)
from runwright.rundir.trust import check_links
from runwright.sweeps.leaderboard import compare, find_runs
from runwright.sweeps.table import write_summary

READERS = {
    "config.yaml": read_values,
    "metrics.json": read_metrics,
    "overrides.yaml": read_overrides,
    "provenance.json": read_provenance,
    "test_results.json": read_results,
    "error.txt": read_error,
    "metrics.csv": read_curves,
    "events.out.tfevents.1": read_curves,
    "checkpoints/last.ckpt": lambda run_dir: find_checkpoint(run_dir, "last"),
    "checkpoints/best-001.ckpt": lambda run_dir: find_checkpoint(run_dir, "best"),
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """One without a file."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def leads_out(path: Path) -> None:
    secret = Path(os.environ["SECRET"])
    secret.write_text("secret")
    path.symlink_to(secret)


def leads_to_nothing_outside(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**43)


@pytest.fixture(autouse=True)
def _secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", str(tmp_path / "secret"))


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", [leads_out, leads_to_nothing_outside, circle, folder, os.mkfifo, huge])
def test_only_a_plain_file_of_the_directory_is_read(run_dir, name, kind):
    kind(run_dir / name)
    with pytest.raises(InputError) as caught:
        READERS[name](run_dir)
    assert str(caught.value).startswith(str(run_dir / name))
    assert "secret:" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_link_within_the_directory_and_a_directory_behind_a_link_are_fine(run_dir, tmp_path, name):
    (run_dir / "real").write_bytes(b"")
    (run_dir / name).symlink_to(run_dir / "real")
    (tmp_path / "link").symlink_to(run_dir)
    for each in (run_dir, tmp_path / "link"):
        with open_inside(each / name, each, 10) as file:
            assert file.read() == b""


def test_an_event_file_of_any_name_that_tensorboard_reads_is_judged(run_dir):
    (run_dir / "events.out.tfevents.1").write_bytes(b"")
    os.mkfifo(run_dir / "another.tfevents.profile")
    with pytest.raises(InputError, match=r"another\.tfevents\.profile: not a plain file"):
        read_curves(run_dir)


@pytest.mark.parametrize("content", [b"- &a x\n- *a\n", b"!!python/name:os.system ''", b"[" * 300_000])
@pytest.mark.parametrize("name", ["overrides.yaml", "config.yaml"])
def test_yaml_that_could_grow_or_build_things_is_refused(run_dir, name, content):
    (run_dir / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        READERS[name](run_dir)


def test_a_huge_error_is_told_by_its_beginning(run_dir):
    (run_dir / "error.txt").write_text("no memory\x1b[2J" + 10**6 * "!")
    assert read_error(run_dir).startswith("no memory\N{REPLACEMENT CHARACTER}[2J!!!")
    assert len(read_error(run_dir)) < 2000


@pytest.mark.parametrize("what", ["config.yaml", "metrics.json", "error.txt", "events.out.tfevents.0"])
def test_compare_and_report_end_with_a_sentence_on_a_pipe(tmp_path, what):
    run = make_run(tmp_path / "sweep" / "0", settings={"seed": 1})
    (run / what).unlink(missing_ok=True)
    if what == "error.txt":
        (run / "metrics.json").unlink()
    os.mkfifo(run / what)
    for script in ("compare", "report") if what != "config.yaml" else ("report",):
        target = run if what == "config.yaml" or script == "report" else tmp_path / "sweep"
        if script == "compare" and what.startswith("events"):
            continue  # it reads no curves
        command = [sys.executable, str(SCRIPT.with_stem(script)), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        assert f"{run / what}: not a plain file" in done.stderr


@pytest.mark.parametrize("name", ["summary.csv", "summary.json", "summary.csv.partial"])
def test_compare_replaces_a_link_and_does_not_write_through_it(tmp_path, name):
    make_run(tmp_path / "sweep" / "0")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / "sweep" / name).symlink_to(mine)
    write_summary(tmp_path / "sweep", compare(find_runs([tmp_path / "sweep"])))
    assert mine.read_text() == "mine"
    assert not (tmp_path / "sweep" / name).is_symlink()


@pytest.mark.parametrize(
    ("recorded", "name"),
    [
        ("checkpoints/best-001.ckpt", "best-001.ckpt"),
        ("/home/them/runs/x/checkpoints/best-001.ckpt", "best-001.ckpt"),
        ("../../../mine.ckpt", "mine.ckpt"),
        ("checkpoints/best-001.ckpt/../../../mine.txt", None),
        ("/etc/passwd", None),
        ("..", None),
        ("", None),
        ("a\0b.ckpt", None),
        ("\x1b[2J.ckpt", None),
        (None, None),
        (["x.ckpt"], None),
    ],
)
def test_of_a_recorded_path_nothing_but_the_name_counts(tmp_path, recorded, name):
    assert named_in(tmp_path, recorded) == (tmp_path / name if name else None)


@pytest.mark.parametrize("best", ["", ".", "..", "checkpoints/", "a\0.ckpt", "[", "*.ckpt"])
def test_a_best_checkpoint_of_a_strange_name_is_none(tmp_path, best):
    run = make_run(tmp_path / "run", best_checkpoint=best)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    assert find_checkpoint(run, "best").name == "last.ckpt"


def test_a_checkpoint_that_inflates_is_refused(tmp_path, monkeypatch):
    path, buffer = tmp_path / "last.ckpt", io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10_000_000))
    path.write_bytes(checkpoint.seal(buffer.getvalue()))
    monkeypatch.setattr(checkpoint, "_largest", lambda: 1_000_000)
    with pytest.raises(DamagedCheckpointError, match="takes more than 1,000,000 bytes"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [[1], "text", 3, None, torch.zeros(2)])
def test_a_checkpoint_is_a_mapping(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(archive(content))
    with pytest.raises(DamagedCheckpointError):
        read_checkpoint(tmp_path / "last.ckpt")


def test_an_archive_of_samples_that_inflates_is_refused(tmp_path, monkeypatch):
    small, large = tmp_path / "small.npz", tmp_path / "large.npz"
    np.savez_compressed(small, x=np.zeros((10, 4)))
    np.savez_compressed(large, x=np.zeros((1_000_000, 4)))
    assert large.stat().st_size < 100_000
    monkeypatch.setattr(predict, "SHARE", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 10_000_000)
    assert len(predict.read_samples(small, [4], 1.0)) == 10
    with pytest.raises(InputError, match="too much for this machine"):
        predict.read_samples(large, [4], 1.0)


@pytest.mark.parametrize("where", ["train.log", "checkpoints/x", "events.out.tfevents.2"])
def test_what_is_written_into_cannot_hang(made, tmp_path, where):
    run = Path(shutil.copytree(made, tmp_path / "copy"))
    check_links(run)
    os.mkfifo(run / where)
    with pytest.raises(InputError, match="neither a file nor a directory"):
        check_links(run)


def test_a_link_in_the_place_of_the_log_is_refused_however_a_run_is_resumed(cli, made, tmp_path):
    run, mine = Path(shutil.copytree(made, tmp_path / "copy")), tmp_path / "mine"
    mine.write_text("mine")
    (run / "train.log").symlink_to(mine)
    for args in ([f"resume={run}"], ["resume=auto", f"hydra.run.dir={run}"]):
        result = cli(*args)
        assert result.status == 2
        assert f"{run / 'train.log'}: a link that leads out" in result.err
    assert mine.read_text() == "mine"
