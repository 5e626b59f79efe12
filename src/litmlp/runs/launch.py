"""Several processes for one run. The only part that knows how they are started and what they tell each other.

The process that Hydra gave a job to composes its configuration once. Where the job takes several processes, it stays
out of the training: it starts a fresh interpreter for each, hands rank 0 the configuration, waits, and returns what
rank 0 found. Rank 0 passes the configuration on through the store at which the processes meet, as JSON, so that every
rank trains the same. Under torchrun or srun the processes are there already, and only that last part happens.
"""

import copy
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from logging.config import dictConfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError

from litmlp.durable import write
from litmlp.runs.errors import InputError, sentence, typed
from litmlp.runs.sweeps import share_machine
from litmlp.signals import Interrupted

if TYPE_CHECKING:
    from torch.distributed import Store

MEETING = "litmlp/job"  # key of the configuration in the store
PORT = "litmlp/port"  # key of the store's port in torchrun's
LAST_WORDS = 1.0  # seconds that the others get once one has failed: it may be they who know why
GRACE = 30.0  # seconds that the others get to save and end once one process has ended on a signal
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class WorkerError(Exception):
    """A process of the run failed; `trace` is what it had to say."""

    def __init__(self, summary: str, trace: str) -> None:
        super().__init__(summary)
        self.trace = trace


@dataclass
class Outcome:
    """What a worker leaves behind in a file, for its supervisor."""

    best: float | None = None
    error: str | None = None
    is_input_error: bool = False
    trace: str = ""
    time: float = 0.0


def launch(cfg: DictConfig) -> float | None:
    """Train as `cfg` says, in this process or in as many as it asks for; the monitored metric's best value."""
    if cfg.seed is None:  # set here, so that all processes have the same
        config = Path(HydraConfig.get().runtime.output_dir) / "config.yaml"
        goes_on = cfg.resume and config.exists()
        cfg.seed = OmegaConf.load(config).seed if goes_on else secrets.randbelow(2**32)
    if _started_by_others():
        store = _meet()
        if os.environ["RANK"] != "0":  # submitit runs the job in each of its tasks
            return _follow(store)
        _fit_to_world(cfg)
        store.set(MEETING, _as_text(cfg))
        return _train(cfg)
    processes = num_processes(cfg)
    share_machine(HydraConfig.get().launcher, Path(HydraConfig.get().sweep.dir), processes)
    return _train(cfg) if processes == 1 else _supervise(_as_text(cfg), processes)


def follow(arguments: Sequence[str]) -> bool:
    """In a process that torchrun or srun started beside rank 0, do this process's part of rank 0's run.

    Returns:
        Whether this is such a process. Rank 0 is not: it goes through Hydra, which makes the run directory.
    """
    if not _started_by_others():
        return False
    if {"-m", "--multirun"} & set(arguments):
        raise InputError(
            "--multirun: torchrun and srun start the processes of one run, and a sweep starts its own; "
            "leave them out and set trainer.devices"
        )
    if os.environ["RANK"] == "0":
        return False
    _follow(_meet())
    return True


def _started_by_others() -> bool:
    """Whether torchrun or srun started this process as one of several; if srun, say so in torchrun's variables."""
    env = os.environ
    if _number("SLURM_STEP_NUM_TASKS", 1) > 1 and "RANK" not in env:
        first_host = subprocess.run(
            ["scontrol", "show", "hostnames", env["SLURM_STEP_NODELIST"]], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        num_nodes = int(env["SLURM_STEP_NUM_NODES"])
        env.setdefault("MASTER_ADDR", first_host)
        env.setdefault("MASTER_PORT", str(15000 + (int(env["SLURM_JOB_ID"]) * 7 + int(env["SLURM_STEP_ID"])) % 15000))
        env |= {
            "RANK": env["SLURM_PROCID"],
            "LOCAL_RANK": env["SLURM_LOCALID"],
            "GROUP_RANK": env["SLURM_NODEID"],
            "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
            "LOCAL_WORLD_SIZE": str(int(env["SLURM_STEP_NUM_TASKS"]) // num_nodes),
            "TORCHELASTIC_RUN_ID": env["SLURM_JOB_ID"],
        }
    if "TORCHELASTIC_RUN_ID" not in env or _number("WORLD_SIZE", 1) == 1:
        return False
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        _number(name)
    return True


def _number(variable: str, default: int | None = None) -> int:
    value = os.environ.get(variable, "" if default is None else str(default))
    if not value.isdecimal():
        raise InputError(
            f"{variable}={value}: torchrun and srun set a number here; start with one, or unset its variables"
        )
    return int(value)


def num_processes(cfg: DictConfig) -> int:
    """How many processes the trainer's options come to on this machine.

    Raises:
        InputError: more than it has cores, or more than one node, which others must start.
    """
    devices, num_nodes = OmegaConf.select(cfg, "trainer.devices"), OmegaConf.select(cfg, "trainer.num_nodes") or 1
    if num_nodes > 1:
        raise InputError(f"trainer.num_nodes={num_nodes}: torchrun or srun start several nodes; see docs/scaling.md")
    if OmegaConf.is_list(devices):
        return len(devices)
    if isinstance(devices, int) and devices >= 0:
        if devices > (num_cores := os.cpu_count() or 1):  # GPUs are fewer still
            raise InputError(f"trainer.devices={devices}: this machine has {num_cores} CPU cores")
        return devices
    if devices is None or cfg.trainer.get("accelerator") == "cpu":
        return 1
    from lightning import Trainer

    return Trainer(accelerator=cfg.trainer.accelerator, devices=devices, barebones=True).num_devices


def _fit_to_world(cfg: DictConfig) -> None:
    """Let the trainer's options say what torchrun or srun have started, unless the user said something else."""
    num_devices = int(os.environ["LOCAL_WORLD_SIZE"])
    for typed_override in HydraConfig.get().overrides.task:
        if typed_override.startswith("trainer.devices=") and typed_override != f"trainer.devices={num_devices}":
            raise InputError(f"{typed_override}: {num_devices} processes were started on this node; leave it out")
    with open_dict(cfg):
        cfg.trainer.devices, cfg.trainer.num_nodes = num_devices, int(os.environ["WORLD_SIZE"]) // num_devices


def _as_text(cfg: DictConfig) -> str:
    """A job as JSON: its configuration, with interpolations resolved so that no process does it anew, and Hydra's."""
    resolved = copy.deepcopy(cfg)
    for key in resolved:
        with suppress(InterpolationKeyError):  # of what the run adds: the model's sizes
            if OmegaConf.is_config(resolved[key]):
                OmegaConf.resolve(resolved[key])
            else:
                resolved[key] = resolved[key]
    hydra: Any = OmegaConf.to_container(HydraConfig.get(), enum_to_str=True)
    hydra["sweep"]["dir"] = HydraConfig.get().sweep.dir  # which refers to the run's name and to this process's time
    return json.dumps({"cfg": OmegaConf.to_container(resolved), "hydra": hydra})


def _supervise(text: str, num_processes: int) -> float | None:
    """Start the processes, wait for them, and end them all when one fails or this process does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(os.environ.get("OMP_NUM_THREADS", cores)) // num_processes
    with TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        outcomes = [Path(folder) / f"{rank}.json" for rank in range(num_processes)]
        workers: list[subprocess.Popen[str]] = []
        with _forwarding(workers) as received:
            for rank, file in enumerate(outcomes):
                environment = {
                    **os.environ,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "GROUP_RANK": "0",
                    "WORLD_SIZE": str(num_processes),
                    "LOCAL_WORLD_SIZE": str(num_processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(listener.getsockname()[1]),
                    "TORCHELASTIC_RUN_ID": "litmlp",  # by which Lightning knows that it need not start any
                    "OMP_NUM_THREADS": str(max(1, threads)),
                }
                worker = subprocess.Popen(
                    [sys.executable, "-m", "litmlp.runs.launch", str(file), str(listener.fileno())],
                    env=environment,
                    stdin=subprocess.PIPE,  # open as long as this process lives
                    pass_fds=[listener.fileno()] if rank == 0 else [],  # so that no other program takes the port
                    start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
                    text=True,
                )
                workers.append(worker)
            try:
                with suppress(BrokenPipeError):  # it has ended already, which is found out below
                    _tell(workers[0], text)
                failed = _wait(workers, received)
            finally:
                for worker in workers:
                    _end(worker)
        if received and not all(file.exists() for file in outcomes):
            raise Interrupted(received[0])
        return _result(workers, outcomes, failed)


def _tell(worker: "subprocess.Popen[str]", text: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(text + "\n")
    worker.stdin.flush()


def _wait(workers: Sequence["subprocess.Popen[str]"], received: Sequence[int]) -> list[int]:
    """Until all have ended, or `LAST_WORDS` after one has failed; after a signal `GRACE` after the first has ended.

    Returns:
        Ranks of those that failed by themselves.
    """
    failed_at = None
    while True:
        if failed_at is None and _failed(workers):
            failed_at = time.monotonic()
        is_over = failed_at is not None and time.monotonic() - failed_at >= (GRACE if received else LAST_WORDS)
        if is_over or all(worker.poll() is not None for worker in workers):
            return _failed(workers)
        time.sleep(0.02)


def _failed(workers: Iterable["subprocess.Popen[str]"]) -> list[int]:
    return [rank for rank, worker in enumerate(workers) if worker.poll() not in (None, 0)]


def _end(worker: "subprocess.Popen[str]") -> None:
    """End a process and what it started: all of them are in its session's group."""
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert worker.stdin is not None
    worker.stdin.close()


@contextmanager
def _forwarding(workers: list["subprocess.Popen[str]"]) -> Iterator[list[int]]:
    """Pass signals on to the workers, which end in their own way; a second one ends them at once."""
    received: list[int] = []

    def forward(number: int, frame: object) -> None:
        received.append(number)
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, number if len(received) == 1 else signal.SIGKILL)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _result(workers: Sequence["subprocess.Popen[str]"], files: Sequence[Path], failed: Sequence[int]) -> float | None:
    """Rank 0's result, or the error of the process that failed first."""
    outcomes = [Outcome(**json.loads(file.read_text())) for file in files if file.exists()]
    errors = sorted((each for each in outcomes if each.error is not None), key=lambda each: each.time)
    ended = {rank: workers[rank].returncode for rank in failed if not files[rank].exists()}  # without a word
    # What was killed from outside comes first: the others only lost it, and say so or are aborted by gloo.
    culprits = [rank for rank, code in ended.items() if code < 0 and code != -signal.SIGABRT]
    if errors and not culprits:
        first, message = errors[0], errors[0].error or ""
        raise InputError(message) if first.is_input_error else WorkerError(message, first.trace)
    for rank in [*culprits, *ended]:
        code = ended[rank]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        raise WorkerError(f"process {rank} of {len(workers)} {how}", "")
    return outcomes[0].best


def _work(outcome_file: Path, listener: int) -> int:
    """What each process that `_supervise` starts does; its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # before there is anything to save, end without a traceback
    text = sys.stdin.readline() if os.environ["RANK"] == "0" else None
    if text == "":  # the supervisor has gone
        return 1
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    outcome = Outcome()
    try:
        store = _meet(listener)
        if text is not None:
            store.set(MEETING, text)
        outcome.best = _follow(store)
    except Interrupted as end:
        return 128 + end.number
    except Exception as error:
        said, outcome.is_input_error = sentence(error), isinstance(error, InputError)
        outcome.error = said or f"{type(error).__name__}: {error}"
        outcome.trace = "" if said else traceback.format_exc()
        outcome.time = getattr(error, "raised_at", time.time())
    write(outcome_file, json.dumps(asdict(outcome)).encode())
    return 0 if outcome.error is None else 1


def _end_with(stream: IO[str]) -> None:
    """Wait until the supervisor's end of the pipe is closed, then end at once, with all that this process started."""
    stream.read()
    os.killpg(0, signal.SIGKILL)


def _meet(listener: int | None = None) -> "Store":
    """The store at which the run's processes meet, served by rank 0, on the socket given if there is one."""
    from torch.distributed import DistNetworkError, TCPStore, default_pg_timeout

    address, port, serves = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), os.environ["RANK"] == "0"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        store = TCPStore(
            address, port, is_master=serves, wait_for_workers=False, master_listen_fd=listener if serves else None
        )
    else:  # torchrun's own store outlives a restart, with what gloo left in it: rank 0 tells there where the new one is
        agents = TCPStore(address, port, is_master=False, wait_for_workers=False)
        if serves:
            store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
            agents.set(PORT, str(store.port))
        while not serves:
            try:
                store = TCPStore(address, int(agents.get(PORT)), timeout=timedelta(seconds=2), wait_for_workers=False)
                store.set_timeout(default_pg_timeout)
                break
            except DistNetworkError:  # of the attempt before, which has ended
                time.sleep(0.1)
        os.environ["MASTER_PORT"] = str(store.port)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # torch's process group is to use this one, not to open another
    return store


def _follow(store: "Store") -> float | None:
    """Train as rank 0's configuration says, with Hydra's state as it would be in a job of Hydra's."""
    job = json.loads(store.get(MEETING))
    cfg = OmegaConf.create(job["cfg"])
    OmegaConf.set_struct(cfg, True)
    setup_globals()
    state = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    with open_dict(state.hydra):  # plugins have added keys
        state.merge_with({"hydra": job["hydra"]})
    HydraConfig.instance().set_config(state)
    hydra = HydraConfig.get()
    if os.environ["RANK"] == "0":
        dictConfig(OmegaConf.to_container(hydra.job_logging, resolve=True))  # type: ignore[arg-type]
    else:  # rank 0 says it
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    with typed(list(hydra.overrides.task)):
        return _train(cfg)


def _train(cfg: DictConfig) -> float | None:
    from litmlp.runs.pruning import pruning_of
    from litmlp.runs.train import train  # imports torch: seconds that --help and a typo need not wait for

    hydra = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)  # a list of strings
    try:
        return train(cfg, Path(hydra.runtime.output_dir), overrides, pruning_of(hydra, cfg.monitor))
    except Exception as error:
        error.raised_at = time.time()  # type: ignore[attr-defined]  # before other processes can notice
        raise
    finally:
        if "RANK" in os.environ:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()  # gloo aborts the process where this is left to its end


if __name__ == "__main__":
    sys.exit(_work(Path(sys.argv[1]), int(sys.argv[2])))
