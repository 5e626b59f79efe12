"""The report of a sweep: which setting is best, by how much, and is it luck?"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import floor, isfinite, log10, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from runwright.config.keys import REPEATS
from runwright.config.walk import as_typed
from runwright.pages.charts import MOST_TICKS, crowd, effect, heat_map, parallel, short
from runwright.pages.page import Figure, Page, Section, Table, Tile, score
from runwright.rundir.curves import read_curves, steps_per_epoch
from runwright.rundir.files import SWEEP_PICTURE
from runwright.rundir.read import read_metrics
from runwright.sweeps.leaderboard import Row, natural
from runwright.sweeps.table import as_columns

MOST_ROWS, MOST_CURVES, MOST_KEYS, MOST_CELLS = 100, 100, 8, 20  # in a table, a chart, a page, a heat map's side


def report_sweep(folder: Path, rows: Sequence[Row]) -> Path:
    """Write `report.html`, and `sweep.png` if any run has finished, into the folder; returns the page's path.

    Args:
        folder: where to write; runs are named relative to it.
        rows: at least one, as returned by `compare`.
    """
    first = rows[0]
    ranked = [row for row in rows if (row.name, row.monitor) == (first.name, first.monitor) and _is_scored(row)]
    keys = _varied(ranked)
    winner, effects, curves = _winner(ranked), _effects(ranked, keys), _curves(folder, ranked, keys)
    together = _together(ranked, keys)
    sections = [winner, effects, together, curves, _table(rows), _failed(folder, rows)]
    num_runs = sum(len({*row.runs, *row.notes}) for row in rows)
    cut_short = sum(note.startswith("pruned") for row in rows for note in row.notes.values())
    finished = sum(row.n for row in rows) - cut_short
    settings = f"{len(rows)} setting{'' if len(rows) == 1 else 's'}"
    pruned = f", {cut_short} pruned by the search" if cut_short else ""
    lead = [f"{settings}, {_runs(num_runs)}, {finished} of them finished{pruned}."]
    if len(ranked) < len([row for row in rows if row.n]):
        lead.append(
            f"The charts show the settings named {first.name} with a finite {first.monitor}; the table shows all."
        )
    page = Page(f"Sweep {folder.resolve().name}", lead, list(_tiles(ranked, keys)), sections, SWEEP_PICTURE)
    pictured = [
        figure for figure in [*curves.figures, *together.figures, *effects.figures] if figure.name != "parallel"
    ]
    return page.write(folder, pictured[:6])


def _runs(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"


def _is_scored(row: Row) -> bool:
    return row.n > 0 and isfinite(row.mean.get(row.monitor, float("nan")))


def _mean(row: Row) -> float:
    return row.mean[row.monitor]


def _varied(rows: Sequence[Row]) -> list[str]:
    return [key for key in rows[0].settings if len({as_typed(row.settings[key]) for row in rows}) > 1] if rows else []


def _setting(row: Row, keys: Sequence[str]) -> str:
    return ", ".join(f"{_short_key(key, keys)}={_as_text(row.settings[key])}" for key in keys) or "all runs"


def _short_key(key: str, keys: Sequence[str]) -> str:
    """The shortest end of a dotted key that no other key shares."""
    parts, others = key.split("."), [other for other in keys if other != key]
    ends = (".".join(parts[i:]) for i in reversed(range(len(parts))))
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)


def _as_text(value: Any) -> str:
    number = _value(value)
    return f"{number:.4g}" if isinstance(number, float) else as_typed(number)


def _value(value: Any) -> Any:
    """A setting as a number if it is a finite one; charts and JSON cannot hold others, so these stay text."""
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float):
        with suppress(ValueError):
            if isfinite(number := kind(str(value))):
                return number
    return as_typed(value)


def _tiles(rows: Sequence[Row], keys: Sequence[str]) -> Iterator[Tile]:
    if not rows:
        return
    best = rows[0]
    over = f"{best.n} {best.over}" if best.n > 1 else "one run"
    if len(rows) > 1:
        yield Tile("best setting", _setting(best, keys), over)
    metrics = [best.monitor, *(key for key in best.mean if key.startswith("test_") and key != best.monitor)]
    for key in metrics[:3]:
        spread = f"± {score(key, best.std[key], digits=2)} over {over}" if best.n > 1 else ""
        yield Tile(key, score(key, best.mean[key]), spread)


def _winner(rows: Sequence[Row]) -> Section:
    section = Section("Which setting, by how much, is it luck?")
    if not rows:
        section.text.append("No run has finished with a finite score, so nothing can be compared.")
    elif len(rows) == 1:
        section.text += list(_only(rows[0]))
    else:
        section.text += list(_lead(rows))
    return section


def _only(row: Row) -> Iterator[str]:
    yield f"All runs have the same setting: its {row.monitor} is {score(row.monitor, _mean(row))}."
    if row.n > 1:
        scores = sorted(_scores(row).values()) or [_mean(row)]
        low, high = (score(row.monitor, each) for each in (scores[0], scores[-1]))
        std = score(row.monitor, row.std[row.monitor], digits=2)
        yield f"Over {row.n} {row.over or 'runs'} it goes from {low} to {high}, with a standard deviation of {std}."


def _lead(rows: Sequence[Row]) -> Iterator[str]:
    (best, second), keys = rows[:2], _varied(rows)
    names = [_setting(row, keys) for row in (best, second)]
    values = [f"{_mean(row):#.4g}" for row in (best, second)]
    yield f"{names[0]} has the best {best.monitor}, {values[0]}; the next, {names[1]}, has {values[1]}."
    ours, theirs = _scores(best), _scores(second)
    if min(len(ours), len(theirs)) < 2:
        yield (
            "But one run per setting cannot show whether that is luck: repeat them, for example with 'seed=range(3)'."
        )
    else:
        margin, how = _margin(ours, theirs, best.over)
        difference = abs(_mean(best) - _mean(second))
        digits = max(0, 1 - floor(log10(margin))) if margin > 0 else 4
        stated = f"The difference is {difference:.{digits}f} ± {margin:.{digits}f} (95 % confidence, {how})"
        if difference > margin:
            yield f"{stated}: more than the {best.over or 'runs'} differ by chance."
        else:
            yield f"{stated}: that may well be luck."
        if "folds" in best.over:
            yield "Folds share most of their training samples, so the true uncertainty is somewhat larger."
        if len(rows) > 3:
            yield f"It was selected as the best of {len(rows)}, so a new run would likely score a little worse."
    repeated = [row.std[row.monitor] for row in rows if row.n > 1]
    if len(rows) > 2 and repeated:
        apart = stdev(map(_mean, rows))
        yield (
            f"Settings differ by a standard deviation of {short(apart, digits=2)}, "
            f"runs of one setting by {short(fmean(repeated), digits=2)} on average."
        )


def _margin(ours: Mapping[Any, float], theirs: Mapping[Any, float], over: str) -> tuple[float, str]:
    """Half the 95 % confidence interval of the difference of two means, and its basis: pairs if possible."""
    from scipy.special import stdtrit  # imported here, because most reports do not need it

    if set(ours) == set(theirs):
        error = stdev(theirs[key] - ours[key] for key in ours) / sqrt(len(ours))
        how = f"{len(ours)} pairs of the same {over}"
    else:
        error = sqrt(sum(stdev(each.values()) ** 2 / len(each) for each in (ours, theirs)))
        how = f"{len(ours)} and {len(theirs)} runs"
    degrees = min(len(ours), len(theirs)) - 1
    return error * float(stdtrit(degrees, 0.975)), how  # Student's t, 95 % two-sided


def _scores(row: Row) -> dict[tuple[Any, ...], float]:
    """The best value of the monitored metric, by seed and fold."""
    scores = {}
    for run in row.runs:
        metrics = read_metrics(Path(run))
        settings = metrics.get("settings") or {}
        if metrics.get("best") is not None:
            scores[tuple(map(str, map(settings.get, REPEATS))) if row.over else (run,)] = metrics["best"]
    return scores


def _effects(rows: Sequence[Row], keys: Sequence[str]) -> Section:
    section = Section("What does each setting do?")
    if not keys:
        section.text.append("Only the seed or the fold was varied.")
        return section
    repeated = any(row.n > 1 for row in rows)
    bars = f", with the standard deviation over {rows[0].over or 'runs'}" if repeated else ", of one run each"
    section.text.append(f"Each point is the mean of a setting{bars}.")
    if len(keys) > MOST_KEYS:
        section.text.append(f"These are the first {MOST_KEYS} of {len(keys)} keys that differ.")
    metric, has_means = rows[0].monitor, False
    for i, key in enumerate(keys[:MOST_KEYS]):
        values = [_value(row.settings[key]) for row in rows]
        points = [
            {
                "value": value,
                "row": _setting(row, keys),
                "mean": _mean(row),
                "std": row.std[metric],
                "low": _mean(row) - row.std[metric],
                "high": _mean(row) + row.std[metric],
            }
            for row, value in zip(rows, values, strict=True)
        ]
        means = _means(zip(values, map(_mean, rows), strict=True))
        listed = ", ".join(f"{_as_text(value)}: {short(mean)}" for value, mean in list(means.items())[:MOST_TICKS])
        is_random = len(keys) > 1 and len(means) == len(rows)  # a search: no value occurs twice
        if is_random or len(means) > MOST_TICKS:
            means = {}
        has_means = has_means or bool(means)
        chart = effect(key, sorted(points, key=_order), metric, f"Mean {metric} by {key}: {listed}.", means)
        section.figures.append(Figure(f"effect_{i}", f"{metric} by {key}", chart))
    if has_means:
        section.text.append("Orange is the mean of all settings with that value.")
    return section


def _order(point: Mapping[str, Any]) -> tuple[int, Any]:
    """Numbers, then lists of numbers, then the rest."""
    value = point["value"]
    if isinstance(value, int | float):
        return 0, value
    with suppress(ValueError):
        return 1, [float(number) for number in str(value).strip("[]").split(",") if number]
    return 2, natural(str(value))


def _means(pairs: Any) -> dict[Any, float]:
    """The mean of the second elements for each first element."""
    groups: dict[Any, list[float]] = {}
    for value, number in pairs:
        groups.setdefault(value, []).append(number)
    return {value: fmean(numbers) for value, numbers in groups.items()}


def _together(rows: Sequence[Row], keys: Sequence[str]) -> Section:
    section = Section("How do settings act together?")
    if len(keys) < 2:
        section.text.append("Fewer than two settings were varied.")
        return section
    metric = rows[0].monitor

    def effect_size(key: str) -> float:
        means = _means((_value(row.settings[key]), _mean(row)) for row in rows).values()
        return max(means) - min(means)

    gridded = [key for key in keys if 1 < len({_as_text(row.settings[key]) for row in rows}) <= MOST_CELLS]
    strongest = sorted(gridded, key=effect_size, reverse=True)[:2]
    pair = [key for key in keys if key in strongest]
    found = _means((tuple(_value(row.settings[key]) for key in pair), _mean(row)) for row in rows)
    shape = [len({at[i] for at in found}) for i in range(len(pair))]
    if len(pair) == 2 and 2 * len(found) > shape[0] * shape[1]:
        x, y = pair
        ordered = sorted(found.items(), key=lambda item: [_order({"value": value}) for value in item[0]])
        grid = [{"x": _as_text(at[0]), "y": _as_text(at[1]), "mean": mean} for at, mean in ordered]
        others = "" if len(keys) == 2 else ", the two with the largest effect, averaged over the others"
        chart = heat_map((x, y), grid, metric, f"Heat map of {metric} by {x} and {y}.")
        section.text.append(f"The heat map shows {metric} by {x} and {y}{others}.")
        section.figures.append(Figure("heat_map", f"{metric} by {x} and {y}", chart))
    else:
        section.text.append("The values do not form a grid for a heat map.")
    shown, axes = rows[:MOST_ROWS], keys[:MOST_KEYS]
    columns = {key: [_value(row.settings[key]) for row in shown] for key in axes}
    description = f"Parallel coordinates of {len(shown)} settings over {', '.join(axes)} and {metric}."
    chart = parallel(columns, [_mean(row) for row in shown], metric, description)
    rest = f", the best {len(shown)} of {len(rows)}" if len(rows) > len(shown) else ""
    section.text.append(f"Each line of the parallel coordinates is a setting{rest}; the best is the thick line.")
    section.figures.append(Figure("parallel", "Parallel coordinates", chart, height=320, is_wide=True))
    return section


def _curves(folder: Path, rows: Sequence[Row], keys: Sequence[str]) -> Section:
    section = Section("How did the runs go?")
    runs = [(run, row) for row in rows for run in row.runs]
    series, unit = [], "epoch"
    for run, row in runs[:MOST_CURVES]:
        curves = read_curves(Path(run))
        points, length = curves.get(row.monitor), steps_per_epoch(curves)
        unit = unit if length else "step"
        if points:
            line = [((step + 1) / (length or 1), value) for step, value in points]
            series.append((os.path.relpath(run, folder), _setting(row, keys), line))
    if not series:
        section.text.append("No run has a curve of the monitored metric.")
        return section
    metric = rows[0].monitor
    if len(runs) > MOST_CURVES:
        section.text.append(f"These are the {MOST_CURVES} best of {len(runs)} runs.")
    chart = crowd(series, unit, metric, f"{metric} by {unit} of {len(series)} runs, the best setting on top.")
    section.figures.append(Figure("curves", f"{metric} of {len(series)} runs", chart, height=320, is_wide=True))
    return section


def _table(rows: Sequence[Row]) -> Section:
    columns = as_columns(rows[:MOST_ROWS])
    section = Section("All settings, best first")
    if len(rows) > MOST_ROWS:
        section.text.append(f"The first {MOST_ROWS} of {len(rows)}; summary.csv has all of them.")
    notes = ["mean (standard deviation)"] if any(row.n > 1 for row in rows) else []
    notes += ["epochs are counted from 0, as in checkpoint names"] if "best epoch" in columns else []
    caption = "; ".join(notes).capitalize()
    section.tables.append(Table(caption, list(columns), list(zip(*columns.values(), strict=True))))
    return section


def _failed(folder: Path, rows: Sequence[Row]) -> Section:
    section = Section("What failed?")
    failed = [item for row in rows for item in row.notes.items() if not item[1].startswith("pruned")]
    if not failed:
        section.text.append("Nothing.")
        return section
    shown = [[os.path.relpath(run, folder), note] for run, note in failed[:MOST_ROWS]]
    section.tables.append(Table(f"{_runs(len(failed))}; error.txt of each has the traceback", ["run", "why"], shown))
    return section
