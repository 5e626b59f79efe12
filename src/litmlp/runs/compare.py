"""Runs side by side: what differs between them, and mean and spread over those that differ in seed or fold alone."""

import json
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
    """Rows in the order of the runs' monitored metric, the best first."""
    loaded = [(run, json.loads((run / "metrics.json").read_text()), _overrides(run)) for run in runs]
    common = set.intersection(*(set(overrides.items()) for *_, overrides in loaded)) if len(loaded) > 1 else set()
    names = {metrics["name"] for _, metrics, _ in loaded}
    groups: dict[str, list[tuple[Path, dict[str, Any], dict[str, str]]]] = {}
    for run, metrics, overrides in loaded:
        differing = {k: v for k, v in overrides.items() if (k, v) not in common and k not in REPEATS}
        setting = " ".join(f"{k}={v}" for k, v in differing.items())
        if not setting or len(names) > 1:
            setting = f"{metrics['name']} {setting}".rstrip()
        groups.setdefault(setting, []).append((run, metrics, overrides))
    rows = [_row(setting, group) for setting, group in groups.items()]
    if not loaded:
        return rows
    monitor, sign = loaded[0][1]["monitor"], -1 if loaded[0][1]["mode"] == "max" else 1
    return sorted(rows, key=lambda row: sign * row.mean.get(monitor, float("inf") * sign))


def _row(setting: str, group: list[tuple[Path, dict[str, Any], dict[str, str]]]) -> Row:
    over = [REPEATS[key] for key in REPEATS if len({overrides.get(key) for *_, overrides in group}) > 1]
    values: dict[str, list[float]] = {}
    for _, metrics, _ in group:
        scores = metrics["fit"] | metrics["test"]
        if metrics["best"] is not None:
            scores[metrics["monitor"]] = metrics["best"]
        for key, value in scores.items():
            values.setdefault(key, []).append(value)
    spread = statistics.pstdev if over == ["folds"] else statistics.stdev
    return Row(
        setting=setting,
        over=" and ".join(over),
        n=len(group),
        mean={key: statistics.fmean(numbers) for key, numbers in values.items()},
        std={key: spread(numbers) if len(numbers) > 1 else 0.0 for key, numbers in values.items()},
        runs=[str(run) for run, *_ in group],
    )


def table(rows: Sequence[Row], metric: str | None = None) -> str:
    """The rows as lines of text: setting, `mean (std)` of the metrics, and what the std is over."""
    if not rows:
        return "no finished runs"
    known = [key for key in rows[0].mean if "/" not in key]
    shown = [metric] if metric else sorted((key for key in known if not key.startswith("train")), reverse=True)
    header = ["setting", *shown, "runs"]
    lines = [[row.setting, *(_score(row, key) for key in shown), _repeats(row)] for row in rows]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [header, *lines]]
    over = {row.over for row in rows if row.n > 1}
    if over == {"folds"}:
        text.append("mean (std) over folds, std with ddof 0")
    elif over - {""}:
        text.append("mean (std), std with ddof 1")
    return "\n".join(line.rstrip() for line in text)


def write_summary(folder: Path, rows: Sequence[Row]) -> None:
    (folder / SUMMARY_FILE).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def _score(row: Row, key: str) -> str:
    if key not in row.mean:
        return "-"
    return f"{row.mean[key]:.4f}" + (f" ({row.std[key]:.4f})" if row.n > 1 else "")


def _repeats(row: Row) -> str:
    return f"{row.n} {row.over}".strip() if row.n > 1 else "1"


def _overrides(run: Path) -> dict[str, str]:
    overrides = yaml.load((run / "overrides.yaml").read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(override.partition("=")[::2] for override in overrides)


def _natural(path: Path) -> list[Any]:
    """Sort key under which 2 comes before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.parts]
