"""Compare runs: their differences, and mean and std over runs that differ only in seed or fold."""

import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runwright.config.errors import printable
from runwright.config.keys import REPEATS
from runwright.config.walk import as_typed
from runwright.rundir.files import CONFIG, ERROR, METRICS
from runwright.rundir.read import read_error, read_metrics, read_overrides


@dataclass
class Row:
    """One combination of settings, with all runs that repeat it.

    `std` divides by n over folds, which together are the whole data set, and by n - 1 over seeds, which are a sample.
    """

    name: str
    monitor: str
    mode: str
    settings: dict[str, Any]  # the settings in which the rows differ
    over: str  # what varies between the runs: "seeds", "folds", "seeds and folds", or ""
    n: int  # number of finished runs; the metrics are over these
    mean: dict[str, float]
    std: dict[str, float]
    best_epoch: float | None
    seconds: float | None
    runs: list[str]
    notes: dict[str, str]  # run -> "failed: why", "unfinished" (running or killed) or "pruned: why"

    @property
    def status(self) -> str:
        counts = Counter(note.partition(":")[0] for note in self.notes.values())
        is_one = len({*self.runs, *self.notes}) == 1
        return ", ".join(word if is_one else f"{count} {word}" for word, count in counts.items())


@dataclass
class _Run:
    path: Path
    typed: dict[str, str]  # overrides
    metrics: dict[str, Any]  # empty unless it has finished
    note: str

    def __post_init__(self) -> None:
        repeats = (*REPEATS, "data.seed")
        self.settings = {k: v for k, v in self.metrics.get("settings", {}).items() if k not in repeats}
        self.setup = tuple(sorted(item for item in self.typed.items() if item[0] not in repeats))

    def repeat(self, key: str) -> str:
        return str(self.metrics.get("settings", {}).get(key, self.typed.get(key)))

    def value(self, key: str) -> Any:
        """Value of a key, or choice of a group, from settings or overrides; choices are only in the overrides."""
        first, second = (self.settings, self.typed) if "." in key else (self.typed, self.settings)
        return first.get(key, second.get(key))


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """All runs in or below these directories, in any state."""
    found = set()
    for folder in folders:
        for path, below, files in os.walk(folder):
            if not {METRICS, CONFIG, ERROR}.isdisjoint(files):
                found.add(Path(path))
                below.clear()
    return sorted(found, key=lambda path: natural(str(path)))


def compare(paths: Iterable[Path]) -> list[Row]:
    """Rows sorted by the monitored metric, best first, separately for each name and monitor.

    Runs with the same settings except seed and fold are one row. A run that has not finished has no recorded settings;
    it goes with the finished run in the same parent directory that has the same overrides.
    """
    runs = sorted(map(_load, paths), key=lambda run: not run.metrics)
    groups: dict[str, list[_Run]] = {}
    group_keys: dict[tuple[Any, ...], str] = {}
    for run in runs:
        place = (str(run.path.parent), run.setup)
        own = (run.metrics["name"], run.metrics["monitor"], run.settings or run.setup) if run.metrics else place
        key = group_keys.get(place) if not run.metrics else None
        key = key or json.dumps(own, sort_keys=True)
        group_keys.setdefault(place, key)
        groups.setdefault(key, []).append(run)
    columns = _columns(runs, [group[0] for group in groups.values()])
    return sorted((_row(group, columns) for group in groups.values()), key=_rank)


def _load(path: Path) -> _Run:
    loaded, overrides, error = read_metrics(path), map(printable, read_overrides(path)), read_error(path)
    note = "unfinished"
    if loaded:
        stopped = str(loaded.get("stopped"))
        note = stopped if stopped.startswith("pruned") else ""
    elif (path / ERROR).exists():
        note = f"failed: {error}"
    typed = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    typed.pop("resume", None)
    return _Run(path, typed, loaded, note)


def _columns(runs: Sequence[_Run], firsts: Sequence[_Run]) -> list[str]:
    """Overrides in which rows differ, and for rows with the same overrides the settings in which these differ."""
    common = set.intersection(*(set(run.typed.items()) for run in runs)) if runs else set()
    typed = dict.fromkeys(key for run in runs for key, value in run.typed.items() if (key, value) not in common)
    columns = [key for key in typed if key not in (*REPEATS, "name") and _differ(firsts, key)]
    similar: dict[tuple[str, ...], list[_Run]] = {}
    for run in firsts:
        if run.metrics:
            similar.setdefault((run.metrics["name"], *(as_typed(run.value(key)) for key in columns)), []).append(run)
    for group in similar.values():
        keys = dict.fromkeys(key for run in group for key in run.settings) if len(group) > 1 else {}
        columns += [key for key in keys if key not in columns and _differ(group, key)]
    return columns


def _differ(runs: Sequence[_Run], key: str) -> bool:
    return len({as_typed(run.value(key)) for run in runs}) > 1


def _row(group: Sequence[_Run], columns: Sequence[str]) -> Row:
    first, finished = group[0], [run for run in group if run.metrics]
    over = [REPEATS[key] for key in REPEATS if len({run.repeat(key) for run in finished}) > 1]
    scores = [_scores(run.metrics) for run in finished]
    known = dict.fromkeys(key for each in scores for key in each)
    values = {key: [each[key] for each in scores if key in each] for key in known}
    ddof = 0 if over == ["folds"] else 1
    return Row(
        **{key: first.metrics.get(key, "") for key in ("name", "monitor", "mode")},
        settings={key: first.value(key) for key in columns},
        over=" and ".join(over),
        n=len(finished),
        mean={key: _mean(numbers) for key, numbers in values.items()},
        std={key: _std(numbers, ddof) for key, numbers in values.items()},
        best_epoch=_mean_of_known(run.metrics.get("best_epoch") for run in finished),
        seconds=_mean_of_known(run.metrics.get("seconds") for run in finished),
        runs=[str(run.path) for run in finished],
        notes={str(run.path): run.note for run in group if run.note},
    )


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    scores = metrics["fit"] | metrics["test"]
    if metrics["best"] is not None:
        scores[metrics["monitor"]] = metrics["best"]
    return {key: math.nan if value is None else value for key, value in scores.items()}


def _mean(numbers: Sequence[float]) -> float:
    return statistics.fmean(numbers) if all(map(math.isfinite, numbers)) else math.nan


def _std(numbers: Sequence[float], ddof: int) -> float:
    if not all(map(math.isfinite, numbers)):
        return math.nan
    if len(numbers) == 1:
        return 0.0
    return statistics.stdev(numbers) if ddof else statistics.pstdev(numbers)


def _mean_of_known(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.fmean(known) if known else None


def _rank(row: Row) -> tuple[bool, str, str, bool, float]:
    best = row.mean.get(row.monitor, math.nan)
    badness = -best if row.mode == "max" else best
    return row.n == 0, row.name, row.monitor, *((False, badness) if math.isfinite(best) else (True, 0.0))


def natural(text: str) -> list[Any]:
    """Sort key that puts 2 before 10."""
    parts = re.split(r"([0-9]+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
