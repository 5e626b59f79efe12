"""The training curves of a run, from its event files or, if there are none, its metrics.csv."""

import csv
import logging
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from runwright.config.errors import InputError, printable
from runwright.rundir.files import EVENTS, TABLE
from runwright.rundir.read import open_inside

LARGEST_EVENTS, LARGEST_TABLE = 1_000_000_000, 100_000_000  # bytes per file
MOST_STEPS = 10**12
LARGEST = 1e38  # about float32's maximum; larger values are skipped, like non-finite ones

Curves = dict[str, list[tuple[int, float]]]  # tag -> (optimizer steps before it, finite value), by step


def read_curves(run_dir: Path) -> Curves:
    """Read the curves of a run; empty if it has none. Steps that a resumed run logged twice appear once.

    Raises:
        InputError: a file is not what it should be.
    """
    table = run_dir / TABLE
    has_events = any(run_dir.glob(EVENTS))
    points = _events(run_dir) if has_events else _rows(table)
    if any(not 0 <= step < MOST_STEPS for values in points.values() for step in values):
        source = run_dir if has_events else table
        raise InputError(f"{source}: not the curves of a run: steps go from 0 to {MOST_STEPS:,}")
    finite = {
        printable(tag): sorted((step, value) for step, value in values.items() if abs(value) < LARGEST)
        for tag, values in points.items()
    }
    return {tag: values for tag, values in finite.items() if values}


def steps_per_epoch(curves: Curves) -> float | None:
    """Steps in the first epoch, which is complete unless it is the only one; None if the curves do not show it."""
    epochs = dict(curves.get("epoch", []))
    ends = [(step, epochs[step]) for step, _ in curves.get("train_loss", []) if step in epochs]
    return (ends[0][0] + 1) / (ends[0][1] + 1) if ends and ends[0][1] >= 0 else None


def _events(run_dir: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    for path in run_dir.iterdir():
        if "tfevents" in path.name:  # as TensorBoard recognises them
            open_inside(path, run_dir, LARGEST_EVENTS).close()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it logs a line for every file
    none = dict.fromkeys(("images", "audio", "histograms", "compressedHistograms", "tensors"), 1)
    try:
        events: Any = EventAccumulator(str(run_dir), size_guidance={**none, "scalars": 0}).Reload()
    except Exception as error:  # a damaged file can make its parsers raise anything
        raise InputError(f"{run_dir}: its event files cannot be read: {error}") from error
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def _rows(table: Path) -> dict[str, dict[int, float]]:
    points: dict[str, dict[int, float]] = {}
    try:
        with TextIOWrapper(open_inside(table, table.parent, LARGEST_TABLE), "utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                for tag, value in row.items():
                    if tag != "step" and value:
                        points.setdefault(tag, {})[int(row["step"])] = float(value)
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError, csv.Error) as error:
        raise InputError(f"{table}: not the curves of a run: {error}") from error
    return points
