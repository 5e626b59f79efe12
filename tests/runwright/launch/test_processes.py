"""Several processes for one run: what they train, what they say, and what they leave behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from conftest import SCRIPT, Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
# 1,281 training samples: the last batch of an epoch is one sample, so that the second process has none of it. The
# other sets do not divide by two either.
SMALL = ["trainer.max_epochs=2", "data.val_size=156", "data.eval_batch_size=25", "model.hidden=[32]"]

FAULT = """
import os, time
from pathlib import Path
import torch
from lightning import Callback

class Fault(Callback):
    '''Raises, or kills its process, on rank 1 of the runs whose rate is 0.3.'''

    def __init__(self, kills: bool = False) -> None:
        self.kills = kills

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 3 and trainer.optimizers[0].defaults["lr"] == 0.3:
            if self.kills:
                os.kill(os.getpid(), 9)
            raise RuntimeError("rank 1 is on fire")

class FailsOnce(Callback):
    def on_train_batch_start(self, trainer, task, *args):
        if trainer.current_epoch == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            raise RuntimeError("rank %d fell over" % trainer.global_rank)

class Masks(Callback):
    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_step == 0:
            mask = torch.nn.functional.dropout(torch.ones(64), 0.5)
            Path(trainer.default_root_dir, "mask-%d" % trainer.global_rank).write_text(str(mask.tolist()))

class Slow(Callback):
    def on_train_batch_start(self, *args):
        time.sleep(1)
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faults.py").write_text(FAULT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def curve(run_dir: Path, tag: str) -> list[float]:
    events = EventAccumulator(str(run_dir)).Reload()
    return [point.value for point in events.Scalars(tag)]


def files(run_dir: Path) -> list[str]:
    return sorted(re.sub(r"tfevents.*", "tfevents", str(path.relative_to(run_dir))) for path in run_dir.rglob("*"))


@pytest.mark.reports
def test_two_processes_give_the_numbers_of_one(process: Callable[..., Result], cli: Callable[..., Result]) -> None:
    one = cli(*SMALL, "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "hydra.run.dir=one")
    two = process(*SMALL, *TWO, "trainer.log_every_n_steps=1", "hydra.run.dir=two")
    assert (two.status, two.err) == (0, "")
    one_dir, two_dir = one.run_dir, one.run_dir.with_name("two")
    assert files(two_dir) == files(one_dir)
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (one_dir, two_dir))
    assert second["devices"] == 2
    assert second["steps"] == first["steps"]
    for stage in ("fit", "test"):
        assert second[stage] == pytest.approx(first[stage], rel=1e-4)
    assert curve(two_dir, "train_loss_step") == pytest.approx(curve(one_dir, "train_loss_step"), rel=1e-3)
    found, expected = (json.loads((folder / "test_results.json").read_text()) for folder in (two_dir, one_dir))
    assert found["confusion"] == expected["confusion"]
    assert [each["index"] for each in found["mistakes"]] == [each["index"] for each in expected["mistakes"]]
    for name, weight in weights(one_dir).items():
        torch.testing.assert_close(weights(two_dir)[name], weight, rtol=1e-4, atol=1e-6)
    assert two.out.count("run directory") == one.out.count("run directory") == 1


def test_two_processes_give_a_weighted_loss_the_numbers_of_one(
    process: Callable[..., Result], cli: Callable[..., Result]
) -> None:
    weights_of_classes = ["_target_=torch.arange", "start=0", "end=2", "step=0.2"]  # 0 for the first
    weighted = ["+task.loss.ignore_index=3", *(f"+task.loss.weight.{each}" for each in weights_of_classes)]
    small = [*SMALL, "data.batch_size=8", "model.dropout=0", *weighted]  # few, so that the processes' weights differ
    one = cli(*small, "trainer.accelerator=cpu", "hydra.run.dir=one")
    two = process(*small, *TWO, "hydra.run.dir=two")
    assert two.status == 0, two.err
    first, second = (json.loads((one.run_dir.with_name(name) / "metrics.json").read_text()) for name in ("one", "two"))
    for stage in ("fit", "test"):
        assert second[stage] == pytest.approx(first[stage], rel=1e-3)


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_rank_that_failed(process: Callable[..., Result], faults: None) -> None:
    fault = ["+callbacks.fault._target_=faults.Fault", "optimizer.lr=0.3,0.1"]
    result = process("-m", *SMALL, *TWO, *fault)
    assert result.status == 1
    assert result.err.count("rank 1 is on fire") == 1
    failed, finished = result.run_dirs
    assert "rank 1 is on fire" in (failed / "error.txt").read_text()
    assert "in on_train_batch_start" in (failed / "error.txt").read_text()
    assert (finished / "metrics.json").exists()
    assert not (failed / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [False, True])
def test_a_rank_that_fails_ends_the_others(process: Callable[..., Result], faults: None, kills: bool) -> None:
    result = process(
        *SMALL, *TWO, "+callbacks.fault._target_=faults.Fault", f"+callbacks.fault.kills={kills}", "optimizer.lr=0.3"
    )
    assert result.status == 1
    assert result.err.count("Traceback") == (0 if kills else 1)
    assert ("process 1 of 2 was killed by SIGKILL" if kills else "rank 1 is on fire") in result.err


OWN = """
import torch
from lightning import Callback, LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from runwright.contracts import Data

class Own(LightningDataModule, Data):
    sample_shape, num_outputs = (1,), 2

    def __init__(self, batch_size, **options):
        super().__init__()
        self.batch_size = batch_size

    def loader(self, **options):
        x = torch.arange(24.0)[:, None]
        return DataLoader(TensorDataset(x, x[:, 0].long() % 2), self.batch_size // self.trainer.world_size, **options)

    def train_dataloader(self):
        return self.loader(shuffle=True)

    val_dataloader = test_dataloader = loader

class Seen(Callback):
    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        with open(f"{trainer.default_root_dir}/seen-{trainer.global_rank}", "a") as file:
            file.write(" ".join(str(int(x)) for x in batch[0]) + "\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_loaders_of_ones_own_are_shared_among_the_processes(
    process: Callable[..., Result], tmp_path: Path, num_processes: int
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    args = ["data._target_=own.Own", "data.batch_size=8", "+callbacks.seen._target_=own.Seen", "trainer.max_epochs=2"]
    result = process(*args, *(TWO if num_processes == 2 else []), PYTHONPATH=path)
    assert result.status == 0, result.err
    seen = [(result.run_dir / f"seen-{rank}").read_text().splitlines() for rank in range(num_processes)]
    assert [len(batches) for batches in seen] == [6] * num_processes
    for epoch in (slice(0, 3), slice(3, 6)):
        samples = [int(x) for batches in seen for batch in batches[epoch] for x in batch.split()]
        assert sorted(samples) == list(range(24))


def test_bad_input_to_several_processes_is_one_sentence(process: Callable[..., Result]) -> None:
    result = process(*TWO, "data.batch_size=63")
    assert (result.status, result.err) == (2, "data.batch_size=63: cannot be divided evenly among 2 processes\n")
    assert result.run_dirs == []


def test_more_processes_than_cores_are_refused_before_they_start(cli: Callable[..., Result]) -> None:
    result = cli("trainer=ddp", "trainer.devices=1000")
    assert result.status == 2
    assert result.err.startswith("trainer.devices=1000: this machine has ")


@pytest.mark.parametrize(("variable", "value"), [("WORLD_SIZE", "two"), ("RANK", ""), ("MASTER_PORT", "-1")])
def test_a_variable_of_torchruns_that_is_garbled_is_named(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    started = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "29500"}
    for name, number in {"TORCHELASTIC_RUN_ID": "x", **started, variable: value}.items():
        monkeypatch.setenv(name, number)
    result = cli()
    assert result.status == 2
    assert result.err.startswith(f"{variable}={value}: torchrun and srun set a number here; ")


def test_nodes_are_not_started_from_here(cli: Callable[..., Result]) -> None:
    result = cli("trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2")
    assert (result.status, result.err.partition(":")[0]) == (2, "trainer.num_nodes=2")


@pytest.fixture
def running(tmp_path: Path, faults: None) -> Iterator[subprocess.Popen[str]]:
    """A run of two processes in the middle of its training."""
    command = [sys.executable, SCRIPT, *SMALL, *TWO, "+callbacks.slow._target_=faults.Slow"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.rglob("events*")):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    time.sleep(2)
    yield run
    run.kill()


def ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_supervisor_leaves_no_process(running: subprocess.Popen[str], number: int) -> None:
    processes = psutil.Process(running.pid).children(recursive=True)
    assert len(processes) >= 2
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert ended(processes)
    assert running.returncode == (-9 if number == signal.SIGKILL else 128 + number), err
    assert "Traceback" not in err


def torchrun(folder: Path, *args: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", f"--max-restarts={restarts}"]
    command = [sys.executable, "-m", *torchrun, str(SCRIPT), *args]
    return subprocess.run(command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_dropout_differs_between_ranks_and_not_between_repeats(process: Callable[..., Result], faults: None) -> None:
    options = [*SMALL, *TWO, "model.dropout=0.5", "+callbacks.masks._target_=faults.Masks"]
    for name in ("first", "second"):
        result = process(*options, f"hydra.run.dir={name}")
        assert result.status == 0, result.err
    first, second = result.run_dirs
    masks = [[(run_dir / f"mask-{rank}").read_text() for rank in (0, 1)] for run_dir in (first, second)]
    assert masks[0] == masks[1]
    assert masks[0][0] != masks[0][1]
    for name, weight in weights(first).items():
        assert torch.equal(weights(second)[name], weight)


@pytest.mark.slow
def test_torchrun_starts_one_run(tmp_path: Path, cli: Callable[..., Result]) -> None:
    args = [*SMALL, "trainer.accelerator=cpu", "report=false"]
    done = torchrun(tmp_path, *args, "trainer=ddp", "hydra.run.dir=two")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    one = cli(*args, "hydra.run.dir=one")
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["test"] == pytest.approx(one.metrics["test"], rel=1e-4)
    assert files(tmp_path / "two") == files(one.run_dir)


@pytest.mark.slow
def test_torchrun_restarts_from_the_last_checkpoint(tmp_path: Path, cli: Callable[..., Result], faults: None) -> None:
    options = [*SMALL, "model.dropout=0", "trainer=ddp", "trainer.accelerator=cpu", "hydra.run.dir=two", "resume=auto"]
    done = torchrun(tmp_path, *options, "+callbacks.fault._target_=faults.FailsOnce", restarts=1)
    assert done.returncode == 0, done.stderr
    assert "resumes after step 41 (epoch 1)" in done.stdout
    one = cli(*SMALL, "trainer.accelerator=cpu", "hydra.run.dir=one")
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["test"] == pytest.approx(one.metrics["test"], rel=1e-4)


@pytest.mark.slow
def test_torchrun_refuses_a_sweep(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "-m", "seed=1,2")
    assert "--multirun: torchrun and srun start the processes of one run" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_srun_starts_one_run(tmp_path: Path, cli: Callable[..., Result]) -> None:
    """With what srun sets in each task's environment, and a scontrol that knows the only host."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text('#!/bin/sh\n[ "$*" = "show hostnames here[1-1]" ] && echo 127.0.0.1\n')
    (tools / "scontrol").chmod(0o755)
    slurm = {"JOB_ID": "4711", "STEP_ID": "0", "STEP_NUM_TASKS": "2", "STEP_NUM_NODES": "1"}
    slurm |= {"STEP_NODELIST": "here[1-1]", "NODEID": "0", "NTASKS": "2", "JOB_NAME": "train"}
    tasks = []
    for rank in ("0", "1"):
        environment = {f"SLURM_{key}": value for key, value in (slurm | {"PROCID": rank, "LOCALID": rank}).items()}
        environment |= {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
        command = [sys.executable, SCRIPT, *SMALL, "trainer=ddp", "trainer.accelerator=cpu", "hydra.run.dir=two"]
        tasks.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True))
    said = [task.communicate(timeout=240)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0]
    assert (said[0].count("run directory"), said[1]) == (1, "")
    one = cli(*SMALL, "trainer.accelerator=cpu", "hydra.run.dir=one")
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["test"] == pytest.approx(one.metrics["test"], rel=1e-4)


@pytest.fixture
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them; the second's address ends in 2."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces take root and iproute2")
    made = subprocess.run(["ip", "netns", "add", "runwright0"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no network namespace: {made.stderr.strip()}")
    script = """ip netns add runwright1
        ip link add eth7 netns runwright0 type veth peer name eth7 netns runwright1
        ip -n runwright0 address add 10.77.0.1/24 dev eth7
        ip -n runwright1 address add 10.77.0.2/24 dev eth7
        ip -n runwright0 link set lo up
        ip -n runwright1 link set lo up
        ip -n runwright0 link set eth7 up
        ip -n runwright1 link set eth7 up"""
    try:
        for command in script.splitlines():
            subprocess.run(command.split(), check=True)
        yield ["runwright0", "runwright1"]
    finally:
        for host in ("runwright0", "runwright1"):
            subprocess.run(["ip", "netns", "delete", host], check=False)


@pytest.mark.slow
def test_two_hosts_train_one_run(two_hosts: list[str], tmp_path: Path, cli: Callable[..., Result]) -> None:
    torchrun = ["torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--master-addr=10.77.0.1"]
    options = [*SMALL, "trainer=ddp", "trainer.accelerator=cpu", "hydra.run.dir=two"]
    nodes = [
        subprocess.Popen(
            [
                "ip",
                "netns",
                "exec",
                host,
                sys.executable,
                "-m",
                *torchrun,
                f"--node-rank={rank}",
                str(SCRIPT),
                *options,
            ],
            cwd=tmp_path,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "eth7"},
        )
        for rank, host in enumerate(two_hosts)
    ]
    assert [node.wait(timeout=240) for node in nodes] == [0, 0]
    one = cli(*SMALL, "trainer.accelerator=cpu", "hydra.run.dir=one")
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert two["devices"] == 2
    assert two["test"] == pytest.approx(one.metrics["test"], rel=1e-4)
