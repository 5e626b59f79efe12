"""From the command line to a job and back: what stands around Hydra's main function, and around each job in it."""

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from litmlp.runs import report, sweeps
from litmlp.runs.compare import ERROR_FILE, compare, find_runs, show, write_summary
from litmlp.runs.errors import InputError, complain, end_with_pipe, leaves_of, sentence, typed
from litmlp.runs.launch import WorkerError, follow, num_processes
from litmlp.runs.overrides import check_overrides
from litmlp.runs.trust import check_links, check_objects, read_config
from litmlp.signals import Interrupted

log = logging.getLogger(__name__)

LOG_FILE = "train.log"
# Values of conf/train.yaml, and the keys that its groups set by reference to them.
FOLLOWING = {
    "name": r"logger\.(mlflow\.experiment_name|wandb\.project)",
    "seed": r"data\.seed",
    "monitor": r"(callbacks\.\w+|scheduler)\.monitor",
    "mode": r"(callbacks\.\w+|scheduler)\.mode",
    "on_nonfinite": r"callbacks\.\w+\.action",
}

_full_trace = False


def run(main: Callable[[], Any], conf: str) -> None:
    """Run a Hydra application whose bad input costs a sentence and exit status 2, and no run directory.

    `HYDRA_FULL_ERROR=1`, or any `debug=...`, shows the whole traceback instead.
    """
    global _full_trace
    debug_choices = {f"debug={file.stem}" for file in Path(conf, "debug").glob("*.yaml")}
    _full_trace = os.environ.get("HYDRA_FULL_ERROR") == "1" or not debug_choices.isdisjoint(sys.argv)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for a traceback per line
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises what went wrong instead of printing it
    # Under `uv run`, Ray would give its workers a copy of the project, and the runs would be written there.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        if follow(sys.argv):
            return
        _check(conf, _read_command_line())
        main()
        _report_sweep()
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(128 + signal.SIGINT)
    except Interrupted as end:  # in a process that follows rank 0, which says it
        sys.exit(128 + end.number)
    except BrokenPipeError:
        end_with_pipe()
    except Exception as error:
        if _full_trace and not isinstance(error, WorkerError):
            raise
        if _report_sweep():
            sys.exit(1)
        if NoteSweep.directory is not None and NoteSweep.directory.is_dir():  # refused before its first job
            _remove_unused(NoteSweep.directory)
        if isinstance(error, WorkerError):
            sys.exit(error.trace or str(error))
        message = str(error).strip() if isinstance(error, HydraException) else sentence(error)
        if message is None:
            raise
        sys.exit(complain(message))


@contextmanager
def job() -> Iterator[None]:
    """Around one job. A failure is written to the job's directory; bad input to a single run leaves no directory."""
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    try:
        (directory / ERROR_FILE).unlink(missing_ok=True)  # of an attempt that is resumed
        with typed(OmegaConf.to_container(hydra.overrides.task)):  # type: ignore[arg-type]  # a list of strings
            yield
    except Interrupted as end:
        sys.exit(_say_how_to_go_on(directory, end))
    except Exception as error:
        if isinstance(error, OmegaConfBaseException):  # a value that cannot be resolved
            error = InputError(f"{error.full_key}: {str(error).splitlines()[0]}")
        if isinstance(error, InputError) and hydra.mode == RunMode.RUN:
            _remove_unused(directory)
            if not _full_trace:
                sys.exit(complain(str(error)))  # not raised: Hydra would print a line of its own before it
            raise
        said = sentence(error)
        summary = said or (str(error) if isinstance(error, WorkerError) else f"{type(error).__name__}: {error}")
        trace = error.trace if isinstance(error, WorkerError) else traceback.format_exc()
        with suppress(OSError):  # of a disk that is full or gone, as the summary says
            log.error("%s failed: %s", directory, summary)
            (directory / ERROR_FILE).write_text(f"{summary}\n\n{trace}")
            if not (overrides := directory / "overrides.yaml").exists():  # it failed before that
                overrides.write_text(OmegaConf.to_yaml(hydra.overrides.task))
        if said and hydra.mode == RunMode.RUN and not _full_trace:
            sys.exit(1)
        raise


class NoteSweep(Callback):
    """Remembers where the sweep of this process goes, for the report at its end, and notes its command there."""

    is_checked = False  # whether a job for each of its values has been composed and built
    directory: Path | None = None
    with_report = True
    command: dict[str, Any] | None = None  # that started it, for it to go on

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # so that ${hydra:...} in the directory's name resolves by now
        NoteSweep.directory, NoteSweep.with_report = Path(config.hydra.sweep.dir), bool(config.get("report"))
        sweeps.note(NoteSweep.directory, NoteSweep.command)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:  # Hydra would keep these of every job until the sweep ends
            job_return.cfg = job_return.hydra_cfg = None

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        for slot in Path(config.hydra.sweep.dir).glob(".slot-*"):
            slot.unlink()


def _read_command_line() -> Namespace:
    """Parse sys.argv as Hydra will, and rewrite it so that flags may stand anywhere and `from=RUN_DIR` means something.

    `from=RUN_DIR` becomes Hydra's way to say: compose conf/from.yaml, which includes what RUN_DIR/config.yaml holds.
    `resume=RUN_DIR` says the same, and that the run goes on there; `resume=SWEEP_DIR` is that sweep's command again.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for flags in ("--config-name -cn", "--config-path -cp", "--config-dir -cd", "--cfg -c", "--package -p"):
        parser.add_argument(*flags.split())
    for flags in ("--multirun -m", "--run -r", "--resolve", "--help -h", "--hydra-help", "--version"):
        parser.add_argument(*flags.split(), action="store_true")
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    parser.set_defaults(recorded=None)
    args, unknown = parser.parse_known_intermixed_args()
    if unknown:
        raise InputError(f"{unknown[0]}: there is no such flag; --hydra-help lists them")
    flags_given = [arg for arg in sys.argv[1:] if arg not in args.overrides]
    args.overrides = [_quoted(override) for override in args.overrides]
    sources, rest = _sources(args.overrides)
    if sources and (args.config_name or args.config_path or args.config_dir):
        raise InputError(f"{sources[-1]}: cannot be combined with --config-name, --config-path or --config-dir")
    if sources and sources[-1].startswith("resume=") and sweeps.is_sweep(directory := _directory(sources[-1])):
        changed = [override for override in rest if not override.startswith("hydra")]
        if changed:
            raise InputError(f"{changed[0]}: a sweep goes on with the values that it has; start another with this one")
        check_links(directory)
        args.multirun, args.config_name, given = True, *sweeps.command(directory)
        flags_given += ["--multirun", *([f"--config-name={args.config_name}"] if args.config_name else [])]
        args.overrides = [*given, *rest, f"hydra.sweep.dir='{directory}'", "resume=auto"]
        sources, rest = _sources(args.overrides)
    if sources and not (_directory(sources[-1]) / "config.yaml").is_file():
        raise InputError(f"{sources[-1]}: no run directory, it holds no config.yaml")
    if not args.config_path and not args.config_dir:
        sources = [f"{source.partition('=')[0]}={_directory(source)}" for source in sources]
        NoteSweep.command = {"config_name": args.config_name, "overrides": [*sources, *rest]}
    if sources:
        directory = _directory(sources[-1])
        args.recorded = directory, read_config(directory, to_train=True)
        repeated = args.recorded[1]
        goes_on = []
        if sources[-1].startswith("from="):
            repeated = _linked(repeated)
        else:
            check_links(directory)
            goes_on = [f"hydra.run.dir='{directory}'", "resume=auto"]
        ConfigStore.instance().store("recorded", OmegaConf.to_container(repeated))
        args.overrides = [*goes_on, *rest]
        args.config_name = "from"
        flags_given.append("--config-name=from")
    elif "resume=auto" in rest and not any(each.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for each in rest):
        raise InputError(
            "resume=auto: set hydra.run.dir=DIR (of a sweep, hydra.sweep.dir=DIR), which is new each time otherwise"
        )
    sys.argv[1:] = [*flags_given, *args.overrides]
    return args


def _sources(overrides: list[str]) -> tuple[list[str], list[str]]:
    """The overrides that name a directory to start from, and the others."""
    is_source = re.compile(r"(from|resume)=(?!auto$|null$)").match
    return [each for each in overrides if is_source(each)], [each for each in overrides if not is_source(each)]


def _linked(recorded: DictConfig) -> DictConfig:
    """A recorded configuration in which what follows another value in conf/, and has that value, follows it again."""
    linked = recorded.copy()
    for key, value in [leaf for section in recorded for leaf in leaves_of(recorded, str(section))]:
        for source, following in FOLLOWING.items():
            if source in recorded and re.fullmatch(following, key) and value == recorded[source]:
                OmegaConf.update(linked, key, f"${{{source}}}")
    return linked


def _quoted(override: str) -> str:
    """A directory to start from in quotes, for Hydra's grammar does not take the `=` that names of runs have."""
    key, _, value = override.partition("=")
    return f"{key}='{value}'" if key == "init_from" and Path(value).is_dir() else override


def _directory(source: str) -> Path:
    return Path(source.partition("=")[2]).expanduser().resolve()


def _check(conf: str, args: Namespace) -> None:
    """Complain of what is wrong with the command line before Hydra makes a directory; for a sweep, of all its jobs."""
    NoteSweep.is_checked = False
    asks_about_hydra = args.hydra_help or args.shell_completion or args.version
    is_other_config = args.config_path or args.config_dir or args.config_name not in (None, "from")
    if asks_about_hydra or is_other_config or (args.help and not args.overrides):
        return
    config_name = args.config_name or "train"
    with initialize_config_dir(conf, version_base="1.3"):
        jobs, is_sweep = check_overrides(config_name, args.overrides, args.multirun)
        if args.cfg or args.info or args.help:
            return
        if args.recorded:
            run_dir, recorded = args.recorded
            check_objects(run_dir, recorded, to_train=True)  # brings torch, like all that comes after
        if is_sweep:
            from litmlp.runs.train import construct  # brings torch, which a sweep needs anyway

            for each in jobs:
                with typed(each.overrides):
                    cfg = each.compose(config_name)
                    HydraConfig.instance().set_config(cfg)  # to which values refer
                    sweeps.check_launcher(cfg.hydra.launcher)
                    num_processes(cfg)
                    construct(cfg, Path())
            NoteSweep.is_checked = True


def _say_how_to_go_on(directory: Path, end: Interrupted) -> int:
    """The last line of a run that a signal ended; its exit status."""
    where = NoteSweep.directory or directory
    if (directory / "config.yaml").is_file():
        how = "back in SLURM's queue" if _requeue(end) else "to go on"
        log.info("ended by %s; %s: %s", end, how, shlex.join(["python", sys.argv[0], f"resume={where}"]))
    else:
        _remove_unused(directory)
    return 128 + end.number


def _requeue(end: Interrupted) -> bool:
    """Put a SLURM job that was warned of its end back in the queue, where its command, given again, goes on."""
    number, scontrol = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if not (number and scontrol) or end.number != signal.SIGUSR1 or "resume=auto" not in sys.argv:
        return False
    return subprocess.run([scontrol, "requeue", number]).returncode == 0


def _report_sweep() -> int:
    """Say at the end of a sweep how its jobs compare and which failed; the number of those."""
    sweep = NoteSweep.directory
    if sweep is None or not sweep.is_dir():
        return 0
    runs = find_runs([sweep])
    rows = compare(runs)
    if rows:
        write_summary(sweep, rows)
        print()
        show(rows)
        print(f"sweep directory: {sweep}\ncurves: {shlex.join(['tensorboard', '--logdir', str(sweep)])}")
        if NoteSweep.with_report:
            print(report.report_line(sweep))
    failed = {run: note for row in rows for run, note in row.notes.items() if note.startswith("failed: ")}
    if failed:
        where = f"the traceback of each is in its {ERROR_FILE}"
        print(f"{len(failed)} of {len(runs)} jobs failed; {where}:", file=sys.stderr)
    for run, note in failed.items():
        print(f"  {run}: {note.removeprefix('failed: ')}", file=sys.stderr)
    return len(failed)


def _remove_unused(directory: Path) -> None:
    """Remove a directory in which nothing was done yet, and the folders above, up to here, that it leaves empty."""
    for handler in logging.getLogger().handlers:
        handler.close()
    if {path.name for path in directory.iterdir()} <= {LOG_FILE, sweeps.SWEEP_FILE}:
        shutil.rmtree(directory)
        for folder in directory.absolute().parents:
            if Path.cwd() not in folder.parents or any(folder.iterdir()):
                break
            folder.rmdir()
