"""One job of Hydra's: what becomes of its failures, and in how many processes it trains."""

import logging
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runwright.config.arguments import complain, print_trace, shows_traces
from runwright.config.blame import error_context
from runwright.config.errors import InputError, OccupiedError, printable, sentence
from runwright.config.walk import as_typed
from runwright.launch.rendezvous import JOB, as_text, fit_to_world, is_one_of_several, meet, train_as_rank
from runwright.launch.sharing import share_machine
from runwright.launch.supervise import WorkerError, supervise
from runwright.launch.train_here import train_here
from runwright.rundir.create import claim_of
from runwright.rundir.durable import write
from runwright.rundir.files import CONFIG, ERROR, OVERRIDES
from runwright.rundir.read import read_values
from runwright.signals import Interrupted

log = logging.getLogger(__name__)


def run_job(cfg: DictConfig) -> float | None:
    """Train as the configuration says; what a script's main function does.

    A failure is written to the job's directory, unless that holds a run that this start has not gone on with. A job
    of a sweep raises it, for the sweep to count; a single run ends with a line, or a traceback where the reason is no
    line, and exit status 2 for bad input, 1 for all else.

    Returns:
        The monitored metric's best value, for a sweeper; None if nothing logged it.
    """
    directory = Path(HydraConfig.get().runtime.output_dir)
    before = claim_of(directory)
    try:
        return launch(cfg)
    except Interrupted as end:
        sys.exit(_print_how_to_resume(directory, end, is_ours=claim_of(directory) != before))
    except Exception as error:
        if isinstance(error, OmegaConfBaseException):
            error = InputError(sentence(error))
        is_single = HydraConfig.get().mode == RunMode.RUN
        is_untouched = before is not None and claim_of(directory) == before
        is_anothers = isinstance(error, OccupiedError) or is_untouched
        is_refused = isinstance(error, InputError) and is_single  # which leaves nothing behind
        if not is_refused and not is_anothers:
            _record_failure(directory, error)
        if not is_single and is_anothers:
            raise OccupiedError(f"{directory}: {_summary(error)}") from error
        if not is_single:
            raise error
        sys.exit(_print_failure(error, is_logged=not is_refused and not is_anothers))


def _record_failure(directory: Path, error: Exception) -> None:
    with suppress(OSError):  # of a disk that is full or gone, as the summary says
        summary = _summary(error)
        log.error("%s failed: %s", directory, summary)
        trace = error.trace if isinstance(error, WorkerError) else traceback.format_exc()
        write(directory / ERROR, printable(f"{summary}\n\n{trace}").encode())
        if not (overrides := directory / OVERRIDES).exists():  # it failed before that
            write(overrides, OmegaConf.to_yaml(HydraConfig.get().overrides.task).encode())


def _summary(error: Exception) -> str:
    if isinstance(error, WorkerError):
        return str(error)
    return sentence(error) or f"{type(error).__name__}: {error}"


def _print_failure(error: Exception, is_logged: bool) -> int:
    """On standard error, unless a line of the log has said it all; the exit status."""
    is_input_error = isinstance(error, InputError)
    if isinstance(error, WorkerError):
        print(printable(error.trace or str(error)), file=sys.stderr)
    elif sentence(error) is None or shows_traces():
        print_trace()
    elif not is_logged:
        complain(_summary(error))
    return 2 if is_input_error else 1


def _print_how_to_resume(directory: Path, end: Interrupted, is_ours: bool) -> int:
    """The last line of a run that a signal ended, also in its log if it had begun; its exit status."""
    hydra = HydraConfig.get()
    where = directory if hydra.mode == RunMode.RUN else Path(hydra.sweep.dir)
    if (directory / CONFIG).is_file():
        how = "back in SLURM's queue" if _requeue(end) else "to resume it"
        line = f"ended by {end}; {how}: {shlex.join(['python', sys.argv[0], f'resume={where}'])}"
        log.info(line) if is_ours else print(printable(line))
    return 128 + end.number


def _requeue(end: Interrupted) -> bool:
    """Put a SLURM job that was warned of its end back in the queue, where its command, given again, resumes it."""
    number, scontrol = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if not (number and scontrol) or end.number != signal.SIGUSR1 or "resume=auto" not in sys.argv:
        return False
    return subprocess.run([scontrol, "requeue", number]).returncode == 0


def launch(cfg: DictConfig) -> float | None:
    """Train as `cfg` says, in this process or in as many as it asks for; the monitored metric's best value."""
    if cfg.seed is None:  # set here, so that all processes have the same
        config = Path(HydraConfig.get().runtime.output_dir) / CONFIG
        is_resumed = cfg.resume and config.exists()
        cfg.seed = read_values(config.parent).get("seed") if is_resumed else secrets.randbelow(2**32)
    if is_one_of_several():
        store = meet()
        if os.environ["RANK"] != "0":  # submitit runs the job in each of its tasks
            return train_as_rank(store)
        fit_to_world(cfg)
        store.set(JOB, as_text(cfg))
        return train_here(cfg)
    processes = num_processes(cfg)
    share_machine(HydraConfig.get().launcher, Path(HydraConfig.get().sweep.dir), processes)
    return train_here(cfg) if processes == 1 else supervise(as_text(cfg), processes)


def num_processes(cfg: DictConfig) -> int:
    """How many processes the trainer's options come to on this machine.

    Raises:
        InputError: more than it has cores, or more than one node, which others must start.
    """
    devices: Any
    devices, num_nodes = OmegaConf.select(cfg, "trainer.devices"), OmegaConf.select(cfg, "trainer.num_nodes") or 1
    if num_nodes > 1:
        raise InputError(f"trainer.num_nodes={num_nodes}: torchrun or srun start several nodes; see docs/scaling.md")
    if (isinstance(devices, int) and devices == 0) or (OmegaConf.is_list(devices) and not devices):
        raise InputError(f"trainer.devices={as_typed(devices)}: must be at least 1, a list of GPUs, or auto")
    if OmegaConf.is_list(devices):
        return len(devices)
    if isinstance(devices, int) and devices > 0:
        if devices > (num_cores := os.cpu_count() or 1):  # GPUs are fewer still
            raise InputError(f"trainer.devices={devices}: this machine has {num_cores} CPU cores")
        return devices
    if devices is None or cfg.trainer.get("accelerator") == "cpu":
        return 1
    from lightning import Trainer

    with error_context(cfg, "trainer", (f"trainer.devices={devices}",)):
        return Trainer(accelerator=cfg.trainer.get("accelerator", "auto"), devices=devices, barebones=True).num_devices
    raise AssertionError  # the context raises, or what is in it returns
