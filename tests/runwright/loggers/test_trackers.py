"""What the trackers were told is read back from them."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Result

SMALL = ["trainer.max_epochs=2", "data.batch_size=128", "model.hidden=[16]", "trainer.log_every_n_steps=4"]
BLOCK, HEADER = 32768, 7  # bytes, of LevelDB's log format


def mlflow_runs(uri: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


def check_resumed_mlflow_run(uri: str, run_dir: Path) -> None:
    from mlflow.tracking import MlflowClient

    (run,) = mlflow_runs(uri)
    metrics = json.loads((run_dir / "metrics.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.info.run_name == run_dir.name
    assert run.data.params["optimizer.lr"] == "0.05"
    assert run.data.metrics["test_acc"] == pytest.approx(metrics["test"]["test_acc"])
    assert [point.step for point in MlflowClient(uri).get_metric_history(run.info.run_id, "val_loss")] == [10, 21, 32]


def test_mlflow_has_one_run_of_one_that_was_resumed(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_dir = cli(*SMALL, "logger=mlflow").run_dir
    assert cli(f"resume={run_dir}", "trainer.max_epochs=3").status == 0
    check_resumed_mlflow_run(f"sqlite:///{tmp_path / 'mlflow.db'}", run_dir)


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen([*command, "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}"], cwd=tmp_path)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_two_processes_report_once_to_a_server(process: Callable[..., Result], mlflow_server: str) -> None:
    args = [*SMALL, "logger=mlflow", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    run_dir = process(*args, MLFLOW_TRACKING_URI=mlflow_server).run_dir
    assert process(f"resume={run_dir}", "trainer.max_epochs=3", MLFLOW_TRACKING_URI=mlflow_server).status == 0
    check_resumed_mlflow_run(mlflow_server, run_dir)


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run: protocol buffers in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, part = file.read_bytes(), HEADER, b""
    while at < len(content):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block that holds no further header
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(part)
            part = b""


def history(folder: Path, key: str) -> list[float]:
    return [
        float(item.value_json)
        for file in folder.glob("*.wandb")
        for record in wandb_records(file)
        for item in record.history.item
        if key in (item.key, *item.nested_key)
    ]


def test_wandb_has_a_run_for_each_job_and_goes_on_with_it(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    sweep = cli("-m", *SMALL, "logger=wandb", "optimizer.lr=0.05,0.1")
    assert sweep.status == 0, sweep.err
    assert cli(f"resume={sweep.run_dirs[0]}", "trainer.max_epochs=3").status == 0
    wandb.finish()
    found: dict[str, list[Path]] = {}
    for folder in sorted((tmp_path / "wandb").glob("offline-run-*")):
        found.setdefault(folder.name.rpartition("-")[2], []).append(folder)
    first, second = ([*map(Path, found[(run_dir / "wandb.id").read_text()])] for run_dir in sweep.run_dirs)
    assert len(found) == 2
    assert [len(history(folder, "val_loss")) for folder in (*first, *second)] == [2, 1, 2]
    (run,) = [record.run for record in wandb_records(next(second[0].glob("*.wandb"))) if record.HasField("run")][:1]
    assert (run.display_name, run.project) == (sweep.run_dirs[1].name, "digits")


def test_a_mode_that_wandb_does_not_know_is_named(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "onlin")
    result = cli("logger=wandb")
    assert (result.status, result.run_dirs) == (2, [])
    assert "WANDB_MODE=onlin: must be one of online, offline" in result.err


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_named_with_its_extra(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr("runwright.loggers.trackers.find_spec", lambda name: None)
    result = cli(f"logger={package}")
    assert (result.status, result.err) == (
        2,
        f"logger.{package}: {package} is missing; uv sync --extra {package} installs it\n",
    )
