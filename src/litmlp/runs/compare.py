"""Runs side by side: what differs between them, and mean and spread over those that differ in seed or fold alone."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

REPEATS = {"seed": "seeds", "data.fold": "folds"}  # overrides that repeat a setting rather than change it
SUMMARY_FILE = "summary.json"


@dataclass
class Row:
    """One setting, over all the runs that repeat it.

    `std` divides by n over folds, which together are the whole data set, and by n - 1 over seeds, a sample of many.
    """

    setting: str
    over: str  # what the runs differ in: seeds, folds, seeds and folds, or nothing
    n: int
    mean: dict[str, float]
    std: dict[str, float]
    runs: list[str]


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The finished runs among these directories and below them."""
    return sorted({path.parent for folder in folders for path in folder.glob("**/metrics.json")}, key=_natural)


def compare(runs: Sequence[Path]) -> list[Row]:
    """Rows in the order of the runs' monitored metric, the best first; runs of another name or monitor apart.

    Runs repeat each other where all settings but the seed and the fold are the same. A row is called by the overrides
    that not all runs share, or by the settings where those say nothing.
    """
    loaded = [(run, json.loads((run / "metrics.json").read_text()), _overrides(run)) for run in runs]
    common = set.intersection(*(set(overrides.items()) for *_, overrides in loaded)) if len(loaded) > 1 else set()
    names = {metrics["name"] for _, metrics, _ in loaded}
    groups: dict[str, list[tuple[Path, dict[str, Any], dict[str, str]]]] = {}
    labels: dict[str, str] = {}
    for run, metrics, overrides in loaded:
        differing = {k: v for k, v in overrides.items() if (k, v) not in common and k not in REPEATS}
        label = " ".join(f"{k}={v}" for k, v in differing.items())
        if not label or len(names) > 1:
            label = f"{metrics['name']} {label}".rstrip()
        key = json.dumps([metrics["name"], metrics["monitor"], _settings(metrics) or label], sort_keys=True)
        groups.setdefault(key, []).append((run, metrics, overrides))
        labels[key] = label
    full = dict(labels)
    for key, label in labels.items():  # settings that came from elsewhere than the command line
        twins = [_settings(groups[other][0][1]) for other in labels if labels[other] == label and other != key]
        own = _settings(groups[key][0][1]).items()
        full[key] = " ".join([label, *(f"{k}={v}" for k, v in own if any(twin.get(k) != v for twin in twins))])
    rows = [(_row(full[key], group), group[0][1]) for key, group in groups.items()]
    return [row for row, metrics in sorted(rows, key=lambda pair: _rank(*pair))]


def _settings(metrics: dict[str, Any]) -> dict[str, Any]:
    """What makes a run another one, not a repeat."""
    return {k: v for k, v in metrics.get("settings", {}).items() if k not in (*REPEATS, "data.seed")}


def _rank(row: Row, metrics: dict[str, Any]) -> tuple[str, str, bool, float]:
    value = row.mean.get(metrics["monitor"], math.nan)
    return (
        metrics["name"],
        metrics["monitor"],
        not math.isfinite(value),
        (-value if metrics["mode"] == "max" else value) if math.isfinite(value) else 0.0,
    )


def _row(setting: str, group: list[tuple[Path, dict[str, Any], dict[str, str]]]) -> Row:
    over = [REPEATS[key] for key in REPEATS if len({overrides.get(key) for *_, overrides in group}) > 1]
    values: dict[str, list[float]] = {}
    for _, metrics, _ in group:
        scores = metrics["fit"] | metrics["test"]
        if metrics["best"] is not None:
            scores[metrics["monitor"]] = metrics["best"]
        for key, value in scores.items():
            values.setdefault(key, []).append(math.nan if value is None else value)
    ddof = 0 if over == ["folds"] else 1
    return Row(
        setting=setting,
        over=" and ".join(over),
        n=len(group),
        mean={key: _mean(numbers) for key, numbers in values.items()},
        std={key: _std(numbers, ddof) for key, numbers in values.items()},
        runs=[str(run) for run, *_ in group],
    )


def _mean(numbers: Sequence[float]) -> float:
    return statistics.fmean(numbers) if all(map(math.isfinite, numbers)) else math.nan


def _std(numbers: Sequence[float], ddof: int) -> float:
    if not all(map(math.isfinite, numbers)):
        return math.nan
    if len(numbers) == 1:
        return 0.0
    return statistics.stdev(numbers) if ddof else statistics.pstdev(numbers)


def table(rows: Sequence[Row], metric: str | None = None) -> str:
    """The rows as lines of text: setting, `mean (std)` of the metrics, and what the std is over."""
    known = dict.fromkeys(key for row in rows for key in row.mean if "/" not in key and not key.startswith("train"))
    shown = [metric] if metric else sorted(known, reverse=True) or ["train_loss"]
    header = ["setting", *shown, "runs"]
    lines = [[row.setting, *(_score(row, key) for key in shown), _repeats(row)] for row in rows]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *lines]]
    if any(row.n > 1 for row in rows):
        text.append("mean (std)")
    return "\n".join(line.rstrip() for line in text)


def write_summary(folder: Path, rows: Sequence[Row]) -> None:
    (folder / SUMMARY_FILE).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _score(row: Row, key: str) -> str:
    if key not in row.mean:
        return "-"
    return f"{row.mean[key]:.4f}" + (f" ({row.std[key]:.4f})" if row.n > 1 else "")


def _repeats(row: Row) -> str:
    return f"{row.n} {row.over or 'alike'}, ddof {0 if row.over == 'folds' else 1}" if row.n > 1 else "1"


def _overrides(run: Path) -> dict[str, str]:
    overrides = yaml.load((run / "overrides.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(override.partition("=")[::2] for override in overrides)


def _natural(path: Path) -> list[Any]:
    """Sort key under which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]
