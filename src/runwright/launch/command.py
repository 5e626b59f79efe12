"""Parse the command line as typed, and translate it for Hydra."""

import os
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from runwright.config.errors import InputError
from runwright.config.keys import KEYS
from runwright.config.walk import quoted
from runwright.rundir.files import CONFIG
from runwright.rundir.trust import check_links, read_config
from runwright.sweeps.names import is_sweep, read_command

FLAGS_WITH_VALUE = ("--config-name -cn", "--config-path -cp", "--config-dir -cd", "--cfg -c", "--package -p")
PATHS = (*(name for name, row in KEYS.items() if row.is_path), "hydra.run.dir", "hydra.sweep.dir")
FLAGS = ("--multirun -m", "--run -r", "--resolve", "--help -h", "--hydra-help", "--version")


@dataclass(frozen=True)
class Command:
    """A parsed command line, translated for Hydra.

    `from=RUN_DIR` becomes: compose conf/from.yaml, which includes the content of RUN_DIR/config.yaml.
    `resume=RUN_DIR` does the same and resumes the run there; `resume=SWEEP_DIR` repeats that sweep's command.
    """

    flags: list[str]
    overrides: list[str]
    config_name: str
    config_path: str | None
    config_dir: str | None
    is_multirun: bool
    is_question: bool
    """Whether Hydra alone answers it, without composing a configuration (`--version`, say)."""
    shows_config: bool
    """Whether it shows the configuration instead of running."""
    recorded: tuple[Path, DictConfig] | None
    """The run directory that `from=` or `resume=` names, and the content of its config.yaml."""
    repeats: bool
    """Whether the recorded run is repeated (`from=`) in a new directory."""
    typed: dict[str, object]
    """What a sweep records of its command, for resuming it: `config_name` and `overrides`."""


def parse(arguments: Sequence[str], conf: Path) -> Command:
    """Parse a command line as Hydra will. Flags may be anywhere.

    Raises:
        InputError: an unknown flag, a combination that is not allowed, or a directory to start from that is not a
            run or is not trusted.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in FLAGS_WITH_VALUE:
        parser.add_argument(*names.split())
    for names in FLAGS:
        parser.add_argument(*names.split(), action="store_true")
    parser.add_argument("--shell-completion", "-sc", action="store_true")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    args, unknown = parser.parse_known_intermixed_args(list(arguments))
    if unknown:
        raise InputError(f"{unknown[0]}: there is no such flag; --hydra-help lists them")
    if args.config_dir is not None and not Path(args.config_dir).is_dir():
        raise InputError(f"--config-dir {args.config_dir}: there is no such directory")
    if args.multirun and (args.cfg or args.info):
        raise InputError("--multirun: --cfg and --info show one job; leave out --multirun")
    flags = [each for each in arguments if each not in args.overrides]
    sources, overrides = _sources([_quoted(each) for each in args.overrides])
    if len(sources) > 1:
        raise InputError(f"{' '.join(sources)}: a run starts from one directory; leave out all but one")
    if sources and (args.config_name or args.config_path or args.config_dir):
        raise InputError(f"{sources[-1]}: cannot be combined with --config-name, --config-path or --config-dir")
    is_multirun, config_name = args.multirun, args.config_name
    if sources and sources[-1].startswith("resume=") and is_sweep(sweep_dir := _directory(sources[-1])):
        changed = [each for each in overrides if not each.startswith("hydra")]
        if changed:
            raise InputError(
                f"{changed[0]}: a sweep is resumed with its own values; start another sweep to change them"
            )
        _check_place(sources[-1], args.overrides, "hydra.sweep.dir")
        check_links(sweep_dir)
        config_name, given = read_command(sweep_dir)
        is_multirun = True
        flags += ["--multirun", *([f"--config-name={config_name}"] if config_name else [])]
        sources, overrides = _sources([*given, *overrides, f"hydra.sweep.dir={quoted(str(sweep_dir))}", "resume=auto"])
    if sources and not (_directory(sources[-1]) / CONFIG).is_file():
        raise InputError(f"{sources[-1]}: no run directory: it has no {CONFIG}")
    places = [f"{source.partition('=')[0]}={_directory(source)}" for source in sources]
    typed: dict[str, object] = {"config_name": config_name, "overrides": [*places, *overrides]}
    recorded, repeats = None, False
    if sources:
        directory = _directory(sources[-1])
        recorded, repeats = (directory, read_config(directory, conf, to_train=True)), sources[-1].startswith("from=")
        config_name = "from"
        flags.append("--config-name=from")
        if not repeats:
            if is_multirun:
                raise InputError(f"{sources[-1]}: resumes one run, and --multirun starts several; leave one out")
            _check_place(sources[-1], overrides, "hydra.run.dir")
            check_links(directory)
            overrides = [f"hydra.run.dir={quoted(str(directory))}", "resume=auto", *overrides]
    elif "resume=auto" in overrides and not any(
        each.startswith(("hydra.run.dir=", "hydra.sweep.dir=")) for each in overrides
    ):
        raise InputError(
            "resume=auto: set hydra.run.dir=DIR (for a sweep, hydra.sweep.dir=DIR); the default is a new one each time"
        )
    return Command(
        flags,
        overrides,
        config_name or "train",
        args.config_path,
        args.config_dir,
        is_multirun,
        is_question=args.hydra_help or args.shell_completion or args.version or (args.help and not args.overrides),
        shows_config=bool(args.cfg or args.info or args.help),
        recorded=recorded,
        repeats=repeats,
        typed=typed,
    )


def _sources(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides that name a directory to start from, and the others."""
    is_source = re.compile(r"(from|resume)=(?!auto$|null$)").match
    return [each for each in overrides if is_source(each)], [each for each in overrides if not is_source(each)]


def _check_place(source: str, overrides: Sequence[str], key: str) -> None:
    """Refuse another directory for a run or sweep that is resumed."""
    other = next((each for each in overrides if each.lstrip("+").startswith(f"{key}=")), None)
    if other is not None:
        raise InputError(f"{other}: {source} continues in its own directory; leave out one of the two")


def _quoted(override: str) -> str:
    """Quote an override's path if Hydra's grammar would refuse it or read it as something else; expand `~`.

    Raises:
        InputError: it holds `${`, which the recorded configuration would read as a reference.
    """
    name, _, value = override.partition("=")
    if name.lstrip("+") not in PATHS or not value or value[0] in "'\"":  # not a path, or quoted already
        return override
    is_there = name != "name" and Path(value).exists()
    path = value if is_there or name == "name" else os.path.expanduser(value)
    if path == value and not is_there and _is_valid(override):
        return override
    if "${" in path:
        raise InputError(f"{override}: a configuration reads ${{ as the start of a reference; rename the directory")
    return f"{name}={quoted(path)}"


def _is_valid(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _directory(source: str) -> Path:
    path = source.partition("=")[2]
    return Path(path if Path(path).exists() else os.path.expanduser(path)).resolve()
