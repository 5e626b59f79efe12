"""A run whose directory takes no more files says so, keeps what it had saved, and goes on from there."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from bits import differences, left_by
from conftest import SCRIPT, Result
from lightning import Callback, Trainer

from runwright.config.errors import sentence
from runwright.rundir import trust
from runwright.rundir.checkpoint import DamagedCheckpointError, read_checkpoint, seal
from runwright.rundir.durable import write

# Three epochs of 11 batches.
SMALL = [
    *("trainer.max_epochs=3", "data.batch_size=128", "model.hidden=[16]", "hydra.run.dir=run"),
    f"+callbacks.fault._target_={__name__}.Fault",
]


class Fault(Callback):
    """Does `act` once, in the second epoch."""

    act: Callable[[], object] | None = None

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if Fault.act and trainer.global_step == 15:
            act, Fault.act = Fault.act, None
            act()


@pytest.fixture
def whole(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a run leaves that meets no fault."""
    monkeypatch.setattr(trust, "TRAINED", (*trust.TRAINED, __name__))
    run_dir = cli(*SMALL).run_dir
    return left_by(run_dir.rename(run_dir.with_name("whole")))


def test_a_disk_that_takes_no_more(cli: Callable[..., Result], whole: dict[str, Any], tmp_path: Path) -> None:
    no_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    Fault.act = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, no_limit[1]))
    try:
        result = cli(*SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, no_limit)
    assert result.status == 1
    assert result.out.splitlines()[-1].endswith("/checkpoints/best-001.ckpt: File too large")
    assert "Traceback" not in result.err
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["best-000.ckpt", "last.ckpt"]
    assert cli("resume=run").status == 0
    assert not list(differences(left_by(tmp_path / "run"), whole))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread
def test_a_directory_that_vanishes(cli: Callable[..., Result], whole: dict[str, Any], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    Fault.act = lambda: run_dir.rename(tmp_path / "elsewhere")
    result = cli(*SMALL)
    assert result.status == 1
    last = result.out.splitlines()[-1]
    assert f"{run_dir}/" in last
    assert last.endswith(": No such file or directory")
    assert "Traceback" not in result.err
    assert not run_dir.exists()
    (tmp_path / "elsewhere").rename(run_dir)
    assert cli("resume=run").status == 0
    assert not list(differences(left_by(run_dir), whole))


def can_mount() -> bool:
    return sys.platform == "linux" and not subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs user namespaces, in which to mount")
def test_a_file_system_that_is_full_read_only_or_gone() -> None:
    script = SCRIPT.parents[1] / "tests" / "faults.py"
    done = subprocess.run(["unshare", "-rm", sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_a_file_is_the_old_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os if call == "fsync" else Path, call, _fail)
            with pytest.raises(OSError, match="No space left") as error:
                write(path, b"new")
        assert error.value.filename == str(path)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]
    write(path, b"new", previous=tmp_path / "previous")
    assert (path.read_bytes(), (tmp_path / "previous").read_bytes()) == (b"new", b"old")


def _fail(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_any_altered_byte_is_noticed(tmp_path: Path) -> None:
    buffer = BytesIO()
    torch.save({"weight": torch.arange(3)}, buffer)
    content = seal(buffer.getvalue())
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    assert read_checkpoint(path)["weight"].tolist() == torch.load(path, weights_only=True)["weight"].tolist()
    altered = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in range(len(content))]
    for damaged in [b"", content[:-1], content + b"x", *altered]:
        path.write_bytes(damaged)
        with pytest.raises(DamagedCheckpointError):
            read_checkpoint(path)


def test_an_error_without_a_file_is_told_by_the_one_before_it() -> None:
    first, second = OSError(28, "No space left on device", "run/best.ckpt"), OSError(28, "No space left on device")
    second.__context__ = first
    assert sentence(second) == sentence(first) == "run/best.ckpt: No space left on device"
    assert sentence(OSError(28, "No space left on device")) == "No space left on device: a file could not be written"
    assert sentence(OSError(5, "Input/output error")) is None
