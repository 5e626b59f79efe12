"""Resumes a run that was stopped or killed, in its own directory, bit for bit like a run that was not."""

import csv
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from runwright.config.errors import InputError, OccupiedError
from runwright.config.keys import COUNTED_LENGTHS, LENGTHS, may_change
from runwright.config.walk import all_leaves, as_typed
from runwright.loop.checkpoints import is_over
from runwright.rundir.checkpoint import DamagedCheckpointError, read_checkpoint
from runwright.rundir.durable import write
from runwright.rundir.files import CHECKPOINTS, CONFIG, LAST, PREVIOUS, TABLE
from runwright.rundir.read import read_metrics, read_values
from runwright.training import record

log = logging.getLogger(__name__)


def recorded(run_dir: Path) -> DictConfig | None:
    """The configuration recorded in this directory; None if it holds no run."""
    return OmegaConf.create(read_values(run_dir)) if (run_dir / CONFIG).is_file() else None


def finished(run_dir: Path, changed: dict[str, str]) -> dict[str, Any] | None:
    """The metrics of a run that has finished; None if it has not, or if its length has been changed."""
    return None if set(changed) & set(LENGTHS) else read_metrics(run_dir) or None


def changes(run_dir: Path, old: DictConfig, new: DictConfig) -> dict[str, str]:
    """Key -> `old value -> new value`, for each value that has changed.

    Raises:
        InputError: a value has changed that may not change when a run is resumed.
    """
    before, after = all_leaves(old), all_leaves(new)
    keys = [key for key in before | after if key != "resume" and before.get(key) != after.get(key)]
    found = {key: f"{as_typed(before.get(key))} -> {as_typed(after.get(key))}" for key in keys}
    refused = [key for key in keys if not may_change(key)]
    length = new.scheduler.get("run_length_as")
    if length is not None and new.scheduler.get(length) is None:  # the schedule spans the whole run
        refused += [key for key in keys if key in COUNTED_LENGTHS]
    if refused:
        lines = [f"{run_dir}: a resumed run keeps its values, but these differ:"]
        lines += [f"  {key}: {found[key]}" for key in refused]
        if set(refused) <= set(LENGTHS):
            lines.append(f"  (scheduler.{length}, which was not given, follows them)")
        raise InputError("\n".join([*lines, f"to start a new run with other values, use from={run_dir}"]))
    return found


def start(
    run_dir: Path, cfg: DictConfig, overrides: Sequence[str], changed: dict[str, str], trainer: Trainer
) -> Path | None:
    """Record in the directory that the run is resumed.

    Returns:
        The checkpoint to resume from; None if there is none, and the run starts at its beginning.

    Raises:
        InputError: the run is past its new end, or another process has just finished it.
    """
    if finished(run_dir, changed):
        raise OccupiedError(f"{run_dir}: another process has just finished this run")
    path, loaded = _newest_checkpoint(run_dir)
    epoch, step = loaded.get("epoch", 0), loaded.get("global_step", 0)
    if cfg.trainer.max_epochs is not None and 0 <= cfg.trainer.max_epochs < epoch:
        raise InputError(f"trainer.max_epochs={cfg.trainer.max_epochs}: {run_dir} has trained for {epoch} epochs")
    is_within_epoch = "unfinished" not in loaded and loaded.get("resume", {}).get("is_within_epoch", False)
    if 0 <= cfg.trainer.max_steps < step + is_within_epoch:
        more = ", and needs at least one more to end its epoch" if is_within_epoch else ""
        raise InputError(f"trainer.max_steps={cfg.trainer.max_steps}: {run_dir} has trained for {step:,} steps{more}")
    record.restart(run_dir, cfg, overrides)
    if trainer.is_global_zero:
        _continue_logs(trainer, step + is_over(loaded, trainer))
        where = f"resumes after step {step:,} (epoch {epoch})" if path else "starts at its beginning"
        log.info("\n".join([f"{run_dir} {where}", *(f"  {key}: {change}" for key, change in changed.items())]))
    return path


@contextmanager
def restoring(checkpoint: Path | None) -> Iterator[None]:
    """Around training that goes on from a checkpoint: what fails before its first step is laid to the checkpoint.

    Raises:
        InputError: the checkpoint is another run's, or holds something else than a run's state.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        is_training = any(frame.name == "advance" for frame in traceback.extract_tb(error.__traceback__))
        if checkpoint is None or is_training:  # `advance` is what a loop of Lightning's calls for each epoch
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{checkpoint}: not the state of this run: {type(error).__name__}: {reason}\n"
            f"put back the run's own; without it the run goes on from {PREVIOUS}, or starts at its beginning"
        ) from error


def _check_state(path: Path, loaded: Any) -> None:
    kinds = {"epoch": int, "global_step": int, "state_dict": dict, "loops": dict, "callbacks": dict, "resume": dict}
    kinds |= {"optimizer_states": list, "lr_schedulers": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(loaded.get(key), kind)]
    wrong += [] if wrong or loaded["optimizer_states"] else ["optimizer_states"]  # of none
    if wrong:
        raise InputError(f"{path}: not the state of a run: {wrong[0]} is missing in it, or something else")


def _newest_checkpoint(run_dir: Path) -> tuple[Path | None, dict[str, Any]]:
    """The newest undamaged checkpoint, and its content."""
    for path in (run_dir / CHECKPOINTS / LAST, run_dir / CHECKPOINTS / PREVIOUS):
        try:
            loaded = read_checkpoint(path)
            _check_state(path, loaded)
            return path, loaded
        except FileNotFoundError:
            continue
        except DamagedCheckpointError as error:
            log.warning("%s; the one before it is used", error)
    return None, {}


def _continue_logs(trainer: Trainer, step: int) -> None:
    """Make each logger keep what it logged before this step; anything later will be logged again."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, TensorBoardLogger):
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

            restart = SessionLog(status=SessionLog.START)  # makes readers drop this step and later ones
            logger.experiment.file_writer.add_event(Event(step=step, session_log=restart))
        elif isinstance(logger, CSVLogger):
            _continue_csv(logger, step)


def _continue_csv(logger: CSVLogger, step: int) -> None:
    file = Path(logger.log_dir) / TABLE
    aside = file.with_suffix(".aside")  # because the logger deletes an existing file when it starts
    if file.exists():
        file.replace(aside)
    writer = logger.experiment
    if aside.exists():
        with aside.open(newline="") as lines:
            reader = csv.DictReader(lines)
            rows = [row for row in reader if row["step"] and int(row["step"]) < step]
            writer.metrics_keys = list(reader.fieldnames or [])
        text = StringIO(newline="")
        table = csv.DictWriter(text, writer.metrics_keys)
        table.writeheader()
        table.writerows(rows)
        write(file, text.getvalue().encode())
        aside.unlink()
