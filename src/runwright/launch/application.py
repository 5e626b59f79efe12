"""The application around Hydra's main function: checks the command line before it, summarizes a sweep after it."""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from runwright import report
from runwright.config.arguments import complaining
from runwright.config.blame import error_context
from runwright.config.errors import InputError, OccupiedError, printable, sentence
from runwright.config.keys import KEYS, key
from runwright.config.overrides import Job, check_overrides
from runwright.config.walk import all_leaves, quoted
from runwright.launch.command import Command, parse
from runwright.launch.job import num_processes
from runwright.launch.rendezvous import train_other_rank
from runwright.launch.sharing import check_launcher, remove_slots
from runwright.rundir.create import Created, check_free
from runwright.rundir.files import CONFIG, ERROR, LOG, MULTIRUN, SUMMARY, SWEEP
from runwright.rundir.read import read_overrides
from runwright.rundir.trust import check_links, check_objects
from runwright.signals import Interrupted
from runwright.sweeps.leaderboard import compare, find_runs
from runwright.sweeps.names import is_sweep, record_command, run_name
from runwright.sweeps.table import show, write_summary


@dataclass(frozen=True)
class Plan:
    """What to run, from a checked command line."""

    arguments: list[str]
    """Arguments for Hydra. They fix the directory, once for all jobs."""
    directory: Path | None
    """Directory of the run or the sweep; None if there is nothing to run."""
    is_sweep: bool = False
    with_report: bool = False
    command: dict[str, object] | None = None
    """A sweep's command, to be recorded."""
    may_be_there: bool = False
    """Whether the directory may hold a sweep already: to resume it, or for a search, which adds to it."""


def run(main: Callable[[], Any], conf: str) -> None:
    """Run a Hydra application. Bad input is reported in one or two lines; exit status 2, and no files are left behind.

    `HYDRA_FULL_ERROR=1`, which any `debug=...` sets, shows the traceback instead.

    Args:
        main: decorated with `hydra.main`; it calls `runwright.launch.job.run_job`.
        conf: absolute path of the configuration folder.
    """
    logging.raiseExceptions = False  # else a log that cannot be written prints a traceback per line
    # Under `uv run`, Ray would give its workers a copy of the project, and they would write the runs there.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if not {f"debug={file.stem}" for file in Path(conf, "debug").glob("*.yaml")}.isdisjoint(sys.argv):
        os.environ["HYDRA_FULL_ERROR"] = "1"
    with complaining():
        try:
            if train_other_rank(sys.argv):
                return
            plan = make_plan(sys.argv[1:], Path(conf))
            sys.argv[1:] = plan.arguments
            if plan.directory is None:
                main()
            elif plan.is_sweep:
                _sweep(main, plan)
            else:
                _run(main, plan.directory)
        except KeyboardInterrupt:  # before there was anything to save
            sys.exit(128 + signal.SIGINT)
        except Interrupted as end:  # in another rank than 0, which prints it
            sys.exit(128 + end.number)


def make_plan(arguments: Sequence[str], conf: Path) -> Plan:
    """Check a command line, and choose the directory of its run or sweep.

    Raises:
        InputError: something is wrong with it, or with any value of a sweep.
    """
    command = parse(arguments, conf)
    if command.is_question:
        return Plan([*command.flags, *command.overrides], None)
    if command.recorded is not None:
        run_dir, values = command.recorded
        if command.repeats:
            values = _linked(values, command.overrides)
            if not any(each.startswith("num_threads=") for each in read_overrides(run_dir)):
                values.num_threads = "auto"  # the recorded number is of the recorded values
        ConfigStore.instance().store("recorded", OmegaConf.to_container(values))
    folder = conf if command.config_path is None else Path(sys.argv[0]).resolve().parent / command.config_path
    extra = None if command.config_dir is None else str(Path(command.config_dir).resolve())
    search = [] if extra is None else [f"hydra.searchpath=[{quoted(extra)}]"]
    with initialize_config_dir(str(folder), version_base="1.3"):
        overrides = [*search, *command.overrides]
        jobs, is_sweep = check_overrides(command.config_name, overrides, command.is_multirun)
        if command.shows_config:
            if "--resolve" in command.flags:
                _check_references(jobs[0].compose(command.config_name))
            return Plan([*command.flags, *command.overrides], None)
        if command.recorded is not None:
            check_objects(*command.recorded, conf, to_train=True)  # imports torch, as does everything after it
        cfg = jobs[0].compose(command.config_name)
        goals = _check_jobs(jobs, command) if is_sweep else set()
        HydraConfig.instance().set_config(cfg)  # the name of the directory refers to it
        try:
            place = cfg.hydra.sweep.dir if is_sweep else cfg.hydra.run.dir
        except OmegaConfBaseException as error:  # it refers to a missing key
            raise InputError(sentence(error)) from error
    if not is_sweep and not any(each.lstrip("+").startswith("hydra.run.dir=") for each in command.overrides):
        place = f"{place}-{run_name(command.overrides)}".rstrip("-")
    where = f"hydra.{'sweep' if is_sweep else 'run'}.dir"
    if "${" in str(Path(place).absolute()):
        raise InputError(f"{where}={place}: Hydra reads ${{ as the start of a reference; choose another directory")
    resumes = "resume=auto" in command.overrides
    if resumes and any((Path(place) / name).exists() for name in (CONFIG, SWEEP)):
        check_links(Path(place))
    plain = [*command.flags, *command.overrides, f"{where}={quoted(place)}"]
    if is_sweep and "mode" in cfg.hydra.sweeper:  # a search; it needs the mode before its jobs start
        if len(goals) > 1:
            monitors = ",".join(sorted(monitor for monitor, _ in goals))
            raise InputError(f"monitor={monitors}: a search optimizes only one metric")
        plain += [f"hydra.sweeper.mode={mode}" for _, mode in goals]
    may_be_there = resumes or cfg.hydra.sweeper._target_.endswith(".OptunaSweeper")
    return Plan(plain, Path(place), is_sweep, bool(cfg.get("report")), command.typed, may_be_there)


def _check_references(cfg: DictConfig) -> None:
    """Check that every reference can be resolved before a run, so that Hydra can show the configuration."""
    HydraConfig.instance().set_config(cfg)
    try:
        OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"]), resolve=True)
    except InterpolationKeyError as error:
        added = [name for name, row in KEYS.items() if row.is_added]
        raise InputError(
            f"--resolve: {error.full_key}: {str(error).splitlines()[0]}; a run adds {' and '.join(added)}, "
            "and its config.yaml has all values. Leave out --resolve, or set them with +KEY=VALUE"
        ) from error


def _check_jobs(jobs: Sequence[Job], command: Command) -> set[tuple[str, str]]:
    """Build the parts of some jobs of a sweep, which together contain each value at least once.

    Returns:
        The monitored metrics, each with its mode.
    """
    from runwright.loop.quiet import quiet_libraries
    from runwright.training.build import construct  # imports torch, which a sweep needs anyway

    quiet_libraries()
    goals = set()
    for i, job in enumerate(jobs):
        cfg = job.compose(command.config_name)
        HydraConfig.instance().set_config(cfg)  # values refer to it
        if i == 0:
            for part in ("sweeper", "launcher"):
                if not cfg.hydra[part]._target_.startswith("hydra."):  # Hydra's own have no values to check
                    with error_context(cfg, f"hydra.{part}", command.overrides):
                        instantiate(cfg.hydra[part])
            check_launcher(cfg.hydra.launcher)
        num_processes(cfg)
        construct(cfg, Path(), job.overrides)
        goals.add((cfg.monitor, cfg.mode))
    return goals


def _linked(recorded: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Restore the references of a recorded configuration: where conf/ refers to a value and the values are equal.

    A mode belongs to its monitor: it is linked only if the monitor is, and set to null if an override changes the
    monitor.
    """
    linked = recorded.copy()
    leaves = all_leaves(recorded)
    for name, value in leaves.items():
        source, monitor = key(name).follows, f"{name.removesuffix('mode')}monitor"
        if source == "mode" and leaves.get(monitor) != recorded.get("monitor"):
            continue
        if source and source in recorded and value == recorded[source]:
            OmegaConf.update(linked, name, f"${{{source}}}")
    for changed in (override.partition("=")[0].lstrip("+") for override in overrides):
        mode = f"{changed.removesuffix('monitor')}mode"
        if changed.endswith("monitor") and mode in leaves:
            OmegaConf.update(linked, mode, None)
    return linked


def _run(main: Callable[[], Any], directory: Path) -> None:
    created = Created(directory)
    try:
        main()
    finally:
        if not any((directory / name).exists() for name in (CONFIG, ERROR)):  # refused, or ended before it started
            created.remove([LOG])


def _sweep(main: Callable[[], Any], plan: Plan) -> None:
    assert plan.directory is not None
    assert plan.command is not None
    try:
        check_free(plan.directory, "hydra.sweep.dir")
    except OccupiedError:
        if not (plan.may_be_there and is_sweep(plan.directory)):
            raise
    created = Created(plan.directory)
    record_command(plan.directory, plan.command, is_new=not plan.may_be_there)
    status: Any = 0
    runs: list[Path] = []
    try:
        main()
    except SystemExit as end:
        status = end.code
    finally:
        remove_slots(plan.directory)
        runs = find_runs([plan.directory])
        if not runs:
            created.remove([SWEEP, MULTIRUN])
    is_signal = isinstance(status, int) and status > 128  # a job has printed how to resume
    if runs and not is_signal:
        _print_leaderboard(plan.directory, runs, plan.with_report)
    sys.exit(status)


def _print_leaderboard(sweep: Path, runs: Sequence[Path], with_report: bool) -> None:
    """Print the leaderboard, and the jobs that failed."""
    rows = compare(runs)
    try:
        write_summary(sweep, rows)
    except OSError as error:  # such as a full disk; compare.py can show the runs again
        print(printable(f"{sweep / SUMMARY}: {error.strerror}: the table below is not saved"), file=sys.stderr)
    print()
    show(rows)
    print(printable(f"sweep directory: {sweep}\ncurves: {shlex.join(['tensorboard', '--logdir', str(sweep)])}"))
    if with_report:
        print(printable(report.report_line(sweep)))
    failed = {run: note for row in rows for run, note in row.notes.items() if note.startswith("failed: ")}
    if failed:
        where = f"the traceback of each is in its {ERROR}"
        print(f"{len(failed)} of {len(runs)} jobs failed; {where}:", file=sys.stderr)
    for run, note in failed.items():
        print(printable(f"  {run}: {note.removeprefix('failed: ')}"), file=sys.stderr)


class DropConfigs(Callback):
    """Drops the configurations of finished jobs, which Hydra would keep in memory until the sweep ends."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = None
