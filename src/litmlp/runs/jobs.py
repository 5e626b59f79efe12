"""From the command line to a job and back: what stands around Hydra's main function, and around each job in it."""

import logging
import os
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from litmlp.runs.compare import compare, find_runs, table, write_summary
from litmlp.runs.errors import InputError
from litmlp.runs.overrides import check_overrides, compose_or_complain

log = logging.getLogger(__name__)

ERROR_FILE = "error.txt"  # in the directory of a job that failed: one sentence, then the traceback
LOG_FILE = "train.log"

_full_trace = False


def run(main: Callable[[], Any], conf: str) -> None:
    """Run a Hydra application whose bad input costs a sentence and exit status 2, and no run directory.

    `HYDRA_FULL_ERROR=1`, or any `debug=...`, shows the whole traceback instead.
    """
    global _full_trace
    _full_trace = os.environ.get("HYDRA_FULL_ERROR") == "1" or any(arg.startswith("debug=") for arg in sys.argv)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises what went wrong instead of printing it
    try:
        _expand_from()
        _check(conf)
        main()
        _report_sweep()
    except Exception as error:
        if _full_trace:
            raise
        if _report_sweep():
            sys.exit(1)
        if isinstance(error, InputError | HydraException):
            sys.exit(_complain(str(error).strip()))
        if isinstance(error, OSError) and error.filename is not None:
            sys.exit(_complain(f"{error.filename}: {error.strerror}"))
        raise


@contextmanager
def job() -> Iterator[None]:
    """Around one job. A failure is written to the job's directory; bad input to a single run leaves no directory."""
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) and hydra.mode == RunMode.RUN:
            _remove_unused(directory)
            if not _full_trace:
                sys.exit(_complain(str(error)))  # not raised: Hydra would print a line of its own before it
            raise
        summary = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        (directory / ERROR_FILE).write_text(f"{summary}\n\n{traceback.format_exc()}")
        log.error("%s failed: %s", directory, summary)
        raise


class NoteSweep(Callback):
    """Remembers where the sweep of this process goes, for the report at its end."""

    directory: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)  # so that ${hydra:...} in the directory's name resolves by now
        NoteSweep.directory = Path(config.hydra.sweep.dir)


def _expand_from() -> None:
    """`from=RUN_DIR` becomes Hydra's way to say: compose conf/from.yaml, which includes RUN_DIR/config.yaml."""
    given = [arg for arg in sys.argv[1:] if arg.startswith("from=")]
    if not given:
        return
    run_dir = Path(given[-1].removeprefix("from=")).expanduser().resolve()
    if not (run_dir / "config.yaml").is_file():
        raise InputError(f"{given[-1]}: no run directory, it holds no config.yaml")
    rest = [arg for arg in sys.argv[1:] if arg not in given]
    sys.argv[1:] = ["--config-name=from", f"hydra.searchpath=['file://{run_dir}']", *rest]


def _check(conf: str) -> None:
    """Complain of what is wrong with the command line before Hydra makes a directory; for a sweep, of all its jobs."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-name", default="train")
    parser.add_argument("--multirun", "-m", action="store_true")
    asks = parser.add_argument_group("print something and leave")
    asks.add_argument("--cfg", "-c")
    asks.add_argument("--package", "-p")
    asks.add_argument("--info", "-i", nargs="?", const="all")
    args, other_flags = parser.parse_known_intermixed_args()
    if any(flag in other_flags for flag in ("--help", "-h")) and not args.overrides:
        return
    if any(
        flag.startswith(("-cn", "-cp", "-cd", "--config", "--hydra-help", "--shell", "-sc")) for flag in other_flags
    ):
        return  # another configuration than ours, or a question about Hydra
    with initialize_config_dir(conf, version_base="1.3"):
        jobs, is_sweep = check_overrides(args.config_name, args.overrides)
        if (is_sweep or args.multirun) and not (args.cfg or args.info or other_flags):
            from litmlp.runs.train import construct  # brings torch, which a sweep needs anyway

            for overrides in jobs:
                *_, trainer = construct(compose_or_complain(args.config_name, overrides), Path())
                if trainer.world_size > 1:
                    raise InputError(
                        f"trainer.devices={trainer.num_devices}: a sweep's jobs run in one process each so far"
                    )


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _report_sweep() -> int:
    """Say at the end of a sweep how its jobs compare and which failed; the number of those."""
    sweep = NoteSweep.directory
    if sweep is None or not sweep.is_dir():
        return 0
    rows = compare(find_runs([sweep]))
    if rows:
        write_summary(sweep, rows)
        print(f"\n{table(rows)}\nsweep directory: {sweep}\ncurves: tensorboard --logdir {sweep}")
    errors = sorted(sweep.glob(f"*/{ERROR_FILE}"))
    if errors:
        num_jobs = sum(path.is_dir() for path in sweep.iterdir())
        print(
            f"{len(errors)} of {num_jobs} jobs failed; the traceback of each is in its {ERROR_FILE}:", file=sys.stderr
        )
    for path in errors:
        print(f"  {path.parent}: {path.read_text().splitlines()[0]}", file=sys.stderr)
    return len(errors)


def _remove_unused(directory: Path) -> None:
    """Remove a run directory that holds at most the log, and the folders above that it leaves empty."""
    for handler in logging.getLogger().handlers:
        handler.close()
    if {path.name for path in directory.iterdir()} <= {LOG_FILE}:
        (directory / LOG_FILE).unlink(missing_ok=True)
        os.removedirs(directory)
