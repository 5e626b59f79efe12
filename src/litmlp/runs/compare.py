"""Runs side by side: what differs between them, and mean and spread over those that differ in seed or fold alone."""

import csv
import json
import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from litmlp.runs.errors import InputError, as_typed

REPEATS = {"seed": "seeds", "data.fold": "folds"}  # settings that repeat a run rather than make it another one
ERROR_FILE = "error.txt"  # in the directory of a job that failed: one sentence, then the traceback
PROVENANCE = "provenance.json"  # time, git state and versions of each start, the first and each resume's
MOST_ROWS = 100  # of a table on a terminal

Columns = dict[str, list[str]]  # of a table, by what stands at their heads


@dataclass
class Row:
    """One setting, over all the runs that repeat it.

    `std` divides by n over folds, which together are the whole data set, and by n - 1 over seeds, a sample of many.
    """

    name: str
    monitor: str
    mode: str
    settings: dict[str, Any]  # those in which the rows differ
    over: str  # what the runs differ in: seeds, folds, seeds and folds, or nothing
    n: int  # finished runs, which the numbers are of
    mean: dict[str, float]
    std: dict[str, float]
    best_epoch: float | None
    seconds: float | None
    runs: list[str]
    notes: dict[str, str]  # run -> "failed: why", "unfinished" (under way, or killed) or "pruned: why"

    @property
    def status(self) -> str:
        counts = Counter(note.partition(":")[0] for note in self.notes.values())
        is_one = len({*self.runs, *self.notes}) == 1
        return ", ".join(word if is_one else f"{count} {word}" for word, count in counts.items())


@dataclass
class _Run:
    path: Path
    typed: dict[str, str]  # its overrides
    metrics: dict[str, Any]  # empty unless it has finished
    note: str

    def __post_init__(self) -> None:
        repeats = (*REPEATS, "data.seed")
        self.settings = {k: v for k, v in self.metrics.get("settings", {}).items() if k not in repeats}
        self.setup = tuple(sorted(item for item in self.typed.items() if item[0] not in repeats))

    def repeat(self, key: str) -> str:
        return str(self.metrics.get("settings", {}).get(key, self.typed.get(key)))

    def value(self, key: str) -> Any:
        """Of a group the choice, which only the overrides tell; of all else also what was not typed."""
        first, second = (self.settings, self.typed) if "." in key else (self.typed, self.settings)
        return first.get(key, second.get(key))


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The runs among these directories and below them, in any state."""
    found = set()
    for folder in folders:
        for path, below, files in os.walk(folder):
            if not {"metrics.json", "config.yaml", ERROR_FILE}.isdisjoint(files):
                found.add(Path(path))
                below.clear()
    return sorted(found, key=lambda path: natural(str(path)))


def compare(paths: Iterable[Path]) -> list[Row]:
    """Rows in the order of the runs' monitored metric, the best first; runs of another name or monitor apart.

    Runs repeat each other where all settings but the seed and the fold are the same. One that has not finished has no
    settings on record, and counts with the finished run beside it that was started by the same overrides.
    """
    runs = sorted(map(_load, paths), key=lambda run: not run.metrics)
    groups: dict[str, list[_Run]] = {}
    beside: dict[tuple[Any, ...], str] = {}
    for run in runs:
        place = (str(run.path.parent), run.setup)
        own = (run.metrics["name"], run.metrics["monitor"], run.settings or run.setup) if run.metrics else place
        key = beside.get(place) if not run.metrics else None
        key = key or json.dumps(own, sort_keys=True)
        beside.setdefault(place, key)
        groups.setdefault(key, []).append(run)
    columns = _columns(runs, [group[0] for group in groups.values()])
    return sorted((_row(group, columns) for group in groups.values()), key=_rank)


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """`metrics.json`; empty where the run did not finish.

    Raises:
        InputError: it is something else.
    """
    path = run_dir / "metrics.json"
    if not path.is_file():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        is_named = all(isinstance(metrics[key], str) for key in ("name", "monitor", "mode"))
        parts = [metrics["fit"], metrics["test"], metrics.get("settings") or {}]
        numbers = [metrics.get(key) for key in ("best", "best_epoch", "seconds")]
        numbers += [*metrics["fit"].values(), *metrics["test"].values()]
        are_numbers = all(n is None or isinstance(n, float) or (isinstance(n, int) and abs(n) < 2**63) for n in numbers)
        if is_named and are_numbers and all(isinstance(part, dict) for part in parts):
            return metrics
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(f"{path}: not the metrics of a run")


def read_provenance(run_dir: Path) -> list[dict[str, Any]]:
    """`provenance.json`, an entry for each time that the run was started or gone on with; empty where there is none.

    Raises:
        InputError: it is something else.
    """
    path = run_dir / PROVENANCE
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"started": str, "git": dict | None, "versions": dict}
        if isinstance(entries, list) and all(isinstance(each[key], kinds[key]) for each in entries for key in kinds):
            return entries
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise InputError(f"{path}: not the provenance of a run")


def read_overrides(run_dir: Path) -> list[str]:
    """`overrides.yaml`; empty where there is none.

    Raises:
        InputError: it is something else.
    """
    path = run_dir / "overrides.yaml"
    if not path.is_file():
        return []
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        overrides = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        if isinstance(overrides, list) and all(isinstance(override, str) for override in overrides):
            return overrides
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    raise InputError(f"{path}: not what was typed for a run")


def _load(path: Path) -> _Run:
    loaded, overrides, error = read_metrics(path), read_overrides(path), path / ERROR_FILE
    note = "unfinished"
    if loaded:
        stopped = str(loaded.get("stopped"))
        note = stopped if stopped.startswith("pruned") else ""
    elif error.is_file():
        note = "failed: " + error.read_text(errors="replace").partition("\n")[0]
    typed = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
    typed.pop("resume", None)
    return _Run(path, typed, loaded, note)


def _columns(runs: Sequence[_Run], firsts: Sequence[_Run]) -> list[str]:
    """The overrides in which rows differ, and the settings of those that differ in nothing that was typed."""
    common = set.intersection(*(set(run.typed.items()) for run in runs)) if runs else set()
    typed = dict.fromkeys(key for run in runs for key, value in run.typed.items() if (key, value) not in common)
    columns = [key for key in typed if key not in (*REPEATS, "name") and _differ(firsts, key)]
    alike: dict[tuple[str, ...], list[_Run]] = {}
    for run in firsts:
        if run.metrics:
            alike.setdefault((run.metrics["name"], *(as_typed(run.value(key)) for key in columns)), []).append(run)
    for twins in alike.values():
        keys = dict.fromkeys(key for run in twins for key in run.settings) if len(twins) > 1 else {}
        columns += [key for key in keys if key not in columns and _differ(twins, key)]
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
    """Sort key under which 2 comes before 10."""
    parts = re.split(r"([0-9]+)", text)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def show(rows: Sequence[Row], metric: str | None = None) -> None:
    """Print the rows as a table: all of it, or on a terminal what fits its width, and the first `MOST_ROWS`.

    Args:
        rows: at least one, as `compare` gives them.
        metric: show this metric alone.
    """
    from rich.console import Console  # here, so that an answer to a typo need not wait for it
    from rich.table import Table

    console, cells = Console(markup=False, highlight=False, emoji=False), as_columns(rows, metric)
    notes = ["mean (std)"] if any(row.n > 1 for row in rows) else []
    if not console.is_terminal:
        widths = [max(map(len, [head, *column])) for head, column in cells.items()]
        for line in [tuple(cells), *zip(*cells.values(), strict=True)]:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print("\n".join(notes), end="\n" * len(notes))
        return
    optional = {"best epoch", "time", *rows[0].mean} - {metric, *(row.monitor for row in rows)}
    cells, hidden = _fit(cells, [head for head in cells if head in optional], console.width)
    if hidden:
        notes.append(f"no room for {', '.join(hidden)}")
    if len(rows) > MOST_ROWS:
        notes.append(f"the first {MOST_ROWS} of {len(rows)} rows")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in cells:
        table.add_column(head, style="red" if head == "status" else "", overflow="fold")
    for line in list(zip(*cells.values(), strict=True))[:MOST_ROWS]:
        table.add_row(*line)
    console.print(table, *notes, sep="\n")


def _fit(cells: Columns, optional: Sequence[str], width: int) -> tuple[Columns, Sequence[str]]:
    """What there is room for, keys called by their last word if they must; of the optional columns, those left out."""

    def is_too_wide(columns: Columns) -> bool:
        return sum(max(map(len, [head, *column])) + 2 for head, column in columns.items()) - 2 > width

    short = {head.rpartition(".")[2]: column for head, column in cells.items()}
    if is_too_wide(cells) and len(short) == len(cells):
        cells = short
    num_hidden = 0
    while num_hidden < len(optional) and is_too_wide(cells):
        num_hidden += 1
        cells = {head: column for head, column in cells.items() if head not in optional[-num_hidden:]}
    return cells, optional[len(optional) - num_hidden :]


def as_columns(rows: Sequence[Row], metric: str | None = None) -> Columns:
    """The table by column, of those in which there is something to say."""
    metrics = dict.fromkeys(row.monitor for row in rows if row.n)
    plain = [key for row in rows for key in row.mean if "/" not in key and not key.startswith("train")]
    metrics |= dict.fromkeys(sorted(plain, key=lambda key: not key.startswith("test")))
    columns = {
        "name": [row.name or "-" for row in rows],
        **{key: [_short(row.settings[key]) for row in rows] for key in rows[0].settings},
        **{key: [_score(row, key) for row in rows] for key in ([metric] if metric else metrics)},
        "best epoch": ["-" if row.best_epoch is None else f"{row.best_epoch:.3g}" for row in rows],
        "time": ["-" if row.seconds is None else duration(row.seconds) for row in rows],
        "runs": [f"{row.n} {row.over or 'alike'}" if row.n > 1 else str(row.n) for row in rows],
        "status": [row.status for row in rows],
    }
    if rows[0].settings and len({row.name for row in rows if row.n}) < 2:
        del columns["name"]
    dull = {"status": {""}, "runs": {"0", "1"}, "best epoch": {"-"}}
    return {head: column for head, column in columns.items() if not set(column) <= dull.get(head, set())}


def _short(value: Any) -> str:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "-" if value is None else as_typed(value)
    return f"{number:.4g}" if len(str(value)) > 8 else str(value)  # a drawn learning rate has 17 digits


def _score(row: Row, key: str) -> str:
    if key not in row.mean:
        return "-"
    return f"{row.mean[key]:.4f}" + (f" ({row.std[key]:.4f})" if row.n > 1 else "")


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if 100 <= seconds < 1e9 else f"{seconds:.1f} s"


def problems(rows: Iterable[Row]) -> Iterator[str]:
    """One line for each run that failed or has not finished."""
    for row in rows:
        yield from (f"{run}: {note}" for run, note in row.notes.items() if not note.startswith("pruned"))


def write_summary(folder: Path, rows: Sequence[Row]) -> None:
    """Write `summary.json` and `summary.csv`, in which runs are named relative to the folder."""
    entries, flat = [], []
    for row in rows:
        runs = [os.path.relpath(run, folder) for run in row.runs]
        notes = {os.path.relpath(run, folder): note for run, note in row.notes.items()}
        entry = asdict(row) | {"status": row.status, "runs": runs, "notes": notes}
        entries.append(json.loads(json.dumps(entry), parse_constant=lambda _: None))  # JSON has no NaN
        scores = [(f"{key}{of}", each[key]) for key in row.mean for of, each in (("", row.mean), ("_std", row.std))]
        flat.append({"name": row.name, "n": row.n, "over": row.over, **row.settings, **dict(scores)})
        flat[-1] |= {"best_epoch": row.best_epoch, "seconds": row.seconds, "status": row.status}
        flat[-1] |= {
            "notes": "; ".join(dict.fromkeys(row.notes.values())),
            "runs": " ".join(dict.fromkeys([*runs, *notes])),
        }
    (folder / "summary.json").write_text(json.dumps(entries, indent=2) + "\n")
    with (folder / "summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(key for each in flat for key in each))
        writer.writeheader()
        writer.writerows(flat)
