"""One Hydra job: starts its processes, and handles its failures."""

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
    """Train as configured; this is the main function of the training script.

    A failure is recorded in the job's directory, unless that directory holds a run that this job did not start or
    resume. In a sweep the error is raised, so that the sweep counts it. A single run prints one line, or a traceback
    if the error does not explain itself, and exits with status 2 for bad input and 1 for everything else.

    Returns:
        The monitored metric's best value, for a sweeper; None if it was never logged.
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
        is_of_another_run = isinstance(error, OccupiedError) or is_untouched
        is_refused = isinstance(error, InputError) and is_single  # it leaves no files behind
        if not is_refused and not is_of_another_run:
            _record_failure(directory, error)
        if not is_single and is_of_another_run:
            raise OccupiedError(f"{directory}: {_summary(error)}") from error
        if not is_single:
            raise error
        sys.exit(_print_failure(error, is_logged=not is_refused and not is_of_another_run))


def _record_failure(directory: Path, error: Exception) -> None:
    with suppress(OSError):  # the disk may be full or gone, as the summary then says
        summary = _summary(error)
        log.error("%s failed: %s", directory, summary)
        trace = error.trace if isinstance(error, WorkerError) else traceback.format_exc()
        write(directory / ERROR, printable(f"{summary}\n\n{trace}").encode())
        if not (overrides := directory / OVERRIDES).exists():  # it failed before writing them
            write(overrides, OmegaConf.to_yaml(HydraConfig.get().overrides.task).encode())


def _summary(error: Exception) -> str:
    if isinstance(error, WorkerError):
        return str(error)
    return sentence(error) or f"{type(error).__name__}: {error}"


def _print_failure(error: Exception, is_logged: bool) -> int:
    """Print an error to standard error, unless the log has shown it in one line; return the exit status."""
    is_input_error = isinstance(error, InputError)
    if isinstance(error, WorkerError):
        print(printable(error.trace or str(error)), file=sys.stderr)
    elif sentence(error) is None or shows_traces():
        print_trace()
    elif not is_logged:
        complain(_summary(error))
    return 2 if is_input_error else 1


def _print_how_to_resume(directory: Path, end: Interrupted, is_ours: bool) -> int:
    """Print the last line of a run ended by a signal, and log it if the run had started; return the exit status."""
    hydra = HydraConfig.get()
    where = directory if hydra.mode == RunMode.RUN else Path(hydra.sweep.dir)
    if (directory / CONFIG).is_file():
        how = "back in SLURM's queue" if _requeue(end) else "to resume it"
        line = f"ended by {end}; {how}: {shlex.join(['python', sys.argv[0], f'resume={where}'])}"
        log.info(line) if is_ours else print(printable(line))
    return 128 + end.number


def _requeue(end: Interrupted) -> bool:
    """Requeue a SLURM job that was warned of its time limit; its command, run again, then resumes the run."""
    number, scontrol = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if not (number and scontrol) or end.number != signal.SIGUSR1 or "resume=auto" not in sys.argv:
        return False
    return subprocess.run([scontrol, "requeue", number]).returncode == 0


def launch(cfg: DictConfig) -> float | None:
    """Train in this process, or in as many as `cfg` asks for; return the monitored metric's best value."""
    if cfg.seed is None:  # drawn here, so that all processes get the same
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
    """The number of processes that the trainer's options mean on this machine.

    Raises:
        InputError: more processes than cores, no device, or several nodes, which only torchrun or srun can start.
    """
    devices: Any
    devices, num_nodes = OmegaConf.select(cfg, "trainer.devices"), OmegaConf.select(cfg, "trainer.num_nodes") or 1
    if num_nodes > 1:
        raise InputError(f"trainer.num_nodes={num_nodes}: use torchrun or srun for several nodes; see docs/scaling.md")
    if (isinstance(devices, int) and devices == 0) or (OmegaConf.is_list(devices) and not devices):
        raise InputError(f"trainer.devices={as_typed(devices)}: must be at least 1, a list of GPUs, or auto")
    if OmegaConf.is_list(devices):
        return len(devices)
    if isinstance(devices, int) and devices > 0:
        if devices > (num_cores := os.cpu_count() or 1):  # there are fewer GPUs than cores
            raise InputError(f"trainer.devices={devices}: this machine has {num_cores} CPU cores")
        return devices
    if devices is None or (devices == "auto" and cfg.trainer.get("accelerator") == "cpu"):
        return 1
    from lightning import Trainer

    from runwright.loop.quiet import quiet_libraries

    quiet_libraries()
    with error_context(cfg, "trainer", (f"trainer.devices={devices}",)):
        return Trainer(accelerator=cfg.trainer.get("accelerator", "auto"), devices=devices, barebones=True).num_devices
    raise AssertionError  # for mypy: the context manager re-raises every error
