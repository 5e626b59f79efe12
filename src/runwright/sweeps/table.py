"""The leaderboard as a table: on a terminal, as `summary.csv` and `summary.json`."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from runwright.config.errors import printable
from runwright.config.walk import as_typed
from runwright.rundir.durable import write
from runwright.rundir.files import SUMMARY, SUMMARY_TABLE
from runwright.sweeps.leaderboard import Row

MOST_ROWS = 100  # in a table on a terminal

Columns = dict[str, list[str]]  # header -> cells


def show(rows: Sequence[Row], metric: str | None = None) -> None:
    """Print the rows as a table; on a terminal, only the columns that fit and the first `MOST_ROWS` rows.

    Args:
        rows: at least one, from `compare`.
        metric: show only this metric.
    """
    from rich.console import Console  # not at the top: slow to import
    from rich.table import Table

    console = Console(markup=False, highlight=False, emoji=False)
    cells = {_cell(head): list(map(_cell, column)) for head, column in as_columns(rows, metric).items()}
    notes = ["mean (std)"] if any(row.n > 1 for row in rows) else []
    if not console.is_terminal:
        widths = [max(map(len, [head, *column])) for head, column in cells.items()]
        for line in [tuple(cells), *zip(*cells.values(), strict=True)]:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print("\n".join(notes), end="\n" * len(notes))
        return
    needed = {_cell(key) for key in (metric, *(row.monitor for row in rows)) if key}
    optional = {"best epoch", "time", *map(_cell, rows[0].mean)} - needed
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


def _cell(text: str) -> str:
    return printable(text).replace("\n", " ")


def _fit(cells: Columns, optional: Sequence[str], width: int) -> tuple[Columns, Sequence[str]]:
    """The columns that fit, with keys shortened to their last word if needed, and the optional columns left out."""

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
    """The columns of the table, without those that show nothing of interest."""
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
    trivial = {"status": {""}, "runs": {"0", "1"}, "best epoch": {"-"}}
    return {head: column for head, column in columns.items() if not set(column) <= trivial.get(head, set())}


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
    """One line for each run that failed or is unfinished."""
    for row in rows:
        yield from (printable(f"{run}: {note}") for run, note in row.notes.items() if not note.startswith("pruned"))


def write_summary(folder: Path, rows: Sequence[Row]) -> None:
    """Write `summary.json` and `summary.csv`, with the paths of runs relative to the folder."""
    entries, flat = [], []
    for row in rows:
        runs = [os.path.relpath(run, folder) for run in row.runs]
        notes = {os.path.relpath(run, folder): note for run, note in row.notes.items()}
        entry = asdict(row) | {"status": row.status, "runs": runs, "notes": notes}
        entries.append(json.loads(json.dumps(entry), parse_constant=lambda _: None))  # JSON has no NaN
        scores = {name: x for key in row.mean for name, x in ((key, row.mean[key]), (f"{key}_std", row.std[key]))}
        flat.append({"name": row.name, "n": row.n, "over": row.over, **row.settings, **scores})
        flat[-1] |= {"best_epoch": row.best_epoch, "seconds": row.seconds, "status": row.status}
        flat[-1] |= {
            "notes": "; ".join(dict.fromkeys(row.notes.values())),
            "runs": printable(" ".join(dict.fromkeys([*runs, *notes]))),
        }
    write(folder / SUMMARY, (json.dumps(entries, indent=2) + "\n").encode())
    text = StringIO(newline="")
    writer = csv.DictWriter(text, dict.fromkeys(key for each in flat for key in each))
    writer.writeheader()
    writer.writerows(flat)
    write(folder / SUMMARY_TABLE, text.getvalue().encode())
