"""Charts of runs as Altair charts, drawn both on the page and in the PNG pictures.

They set no colour of text or background, so that the page can be light or dark.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from runwright.config.errors import all_printable, printable

COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # Okabe and Ito's palette, safe for colour-blind readers
FAINT = "#8c8c8c"
MOST_POINTS = 500  # per line; a chart has no pixels for more
MOST_MARKS = 60  # up to this many points, a line has a mark at each
MOST_TICKS = 12  # values of a setting that a chart still shows separately

Points = Sequence[tuple[float, float]]
Chart = Any  # alt.Chart or alt.LayerChart: Altair's own base class has no properties()


def lines(
    series: Mapping[str, Points], x: str, y: str, description: str, best: float | None = None, zero: bool = False
) -> Chart:
    """One line per name, with a vertical rule where the best checkpoint was saved."""
    data = [{"x": at, "y": value, "series": name} for name, points in series.items() for at, value in _thinned(points)]
    is_short = max(map(len, series.values())) <= MOST_MARKS
    several = len(series) > 1
    chart = (
        alt.Chart(_values(data))
        .mark_line(point={"size": 25} if is_short else False, strokeWidth=2)
        .encode(
            x=_x(x, [at for points in series.values() for at, _ in points]),
            y=_y([value for points in series.values() for _, value in points], zero),
            color=_color(list(series)) if several else alt.value(COLORS[0]),
            tooltip=[*([alt.Tooltip("series:N", title=" ")] if several else []), _tip("x", x), _tip("y", y)],
        )
    )
    if best is not None:
        mark = alt.Chart(_values([{"x": best, "label": f"best: {x} {best:.4g}"}])).encode(x="x:Q")
        text = mark.mark_text(align="left", dx=4, y=8, fontSize=11).encode(text="label:N")
        chart = mark.mark_rule(strokeDash=[4, 3], color=FAINT, strokeWidth=1.5) + chart + text
    return chart.properties(description=description)


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str], description: str) -> Chart:
    """Cells are shaded by the root of their share of the true class; mistakes are in another colour."""
    data = [
        {"true": names[i], "predicted": names[j], "count": n, "right": i == j, "share": (n / sum(row)) ** 0.5}
        for i, row in enumerate(counts)
        for j, n in enumerate(row)
        if n
    ]
    base = alt.Chart(_values(data)).encode(
        x=alt.X("predicted:N", sort=list(names), scale=alt.Scale(domain=list(names)), title="predicted"),
        y=alt.Y("true:N", sort=list(names), scale=alt.Scale(domain=list(names)), title="true"),
        tooltip=["true:N", "predicted:N", "count:Q"],
    )
    hues = alt.Color("right:N", scale=alt.Scale(domain=[True, False], range=[COLORS[0], COLORS[1]]), legend=None)
    strength = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.1, 0.8]), legend=None)
    cells = base.mark_rect().encode(color=hues, opacity=strength)
    return (cells + base.mark_text(fontSize=11).encode(text="count:Q")).properties(description=description)


def effect(
    key: str, points: Sequence[Mapping[str, Any]], metric: str, description: str, means: Mapping[Any, float]
) -> Chart:
    """A point and a bar for each `value` with `mean`, `low` and `high`; `means`, if any, in another colour."""
    values = list(dict.fromkeys(point["value"] for point in points))
    is_number = _are_numbers(values)
    is_log = is_number and _is_geometric(values)
    scale = alt.Scale(type="log", nice=False, padding=12) if is_log else alt.Scale(zero=False, nice=False, padding=12)
    axis = alt.Axis(grid=False, labelAngle=0 if is_number or len(values) < 6 else -40, labelLimit=110)
    if is_number and means:
        axis.values, axis.format = list(values), "~g"
    x = alt.X(
        "value:Q" if is_number else "value:N",
        scale=scale if is_number else alt.Undefined,
        title=key,
        sort=None,
        axis=axis,
    )
    tooltip = [alt.Tooltip("row:N", title="setting"), _tip("mean", metric), _tip("std", "std")]
    base = alt.Chart(_values(points)).encode(x=x, tooltip=tooltip)
    is_wide = _is_wide([point[end] for point in points for end in ("low", "high")])
    scale = alt.Scale(type="log", nice=False) if is_wide else alt.Scale(zero=False)
    low = alt.Y("low:Q", title=f"{metric}, log scale" if is_wide else metric, scale=scale)
    bars = base.mark_rule(color=COLORS[0], opacity=0.6, strokeWidth=1.5).encode(y=low, y2="high:Q")
    dots = base.mark_point(filled=True, size=45, color=COLORS[0], opacity=0.8).encode(y="mean:Q")
    chart = bars + dots
    if means:
        centres = [{"value": value, "centre": mean} for value, mean in means.items()]
        tooltip = [alt.Tooltip("value:N", title=key), _tip("centre", f"mean {metric}")]
        over = alt.Chart(_values(centres)).encode(x=x, y="centre:Q", tooltip=tooltip)
        ticks = over.mark_tick(
            orient="horizontal", size=30, thickness=2, color=COLORS[1]
        )  # no line, because names have no order
        chart = chart + (over.mark_line(strokeWidth=2, color=COLORS[1]) if is_number else ticks)
    return chart.properties(description=description)


def heat_map(keys: tuple[str, str], cells: Sequence[Mapping[str, Any]], metric: str, description: str) -> Chart:
    """`cells` have `x`, `y` and `mean`; the axes keep the order of the values."""
    numbers = [cell["mean"] for cell in cells]
    low, spread = min(numbers), (max(numbers) - min(numbers)) or 1.0
    data = [{**cell, "label": short(cell["mean"]), "dark": (cell["mean"] - low) / spread < 0.6} for cell in cells]
    base = alt.Chart(_values(data)).encode(
        x=alt.X("x:N", sort=None, title=keys[0], axis=alt.Axis(labelAngle=0)), y=alt.Y("y:N", sort=None, title=keys[1])
    )
    colors = alt.Color("mean:Q", scale=alt.Scale(scheme="viridis"), title=metric, legend=None)
    text = base.mark_text(fontSize=11).encode(
        text="label:N", color=alt.condition("datum.dark", alt.value("white"), alt.value("black"))
    )
    tooltip = [alt.Tooltip("x:N", title=keys[0]), alt.Tooltip("y:N", title=keys[1]), _tip("mean", metric)]
    return (base.mark_rect().encode(color=colors, tooltip=tooltip) + text).properties(description=description)


def parallel(axes: Mapping[str, Sequence[Any]], scores: Sequence[float], metric: str, description: str) -> Chart:
    """One line per setting, best first, through its value on each axis to its score on the last axis."""
    columns = {**axes, metric: scores}
    places, ticks = {}, []
    for key, values in columns.items():
        places[key], labels = _axis(values)
        ticks += [{"axis": key, "place": place, "label": label} for label, place in labels.items()]
    data = [
        {"row": i, "axis": key, "place": places[key][i], "value": str(columns[key][i]), "score": score}
        for i, score in reversed(list(enumerate(scores)))
        for key in columns
    ]
    x = alt.X("axis:N", sort=list(columns), title=None, axis=alt.Axis(labelAngle=0, domain=False, labelLimit=110))
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.05, 1.05]))
    tooltip = [alt.Tooltip("axis:N", title=" "), alt.Tooltip("value:N"), _tip("score", metric)]
    rest = alt.Chart(_values(data)).encode(x=x, y=y, detail="row:N", tooltip=tooltip)
    colors = alt.Color(
        "score:Q", scale=alt.Scale(domain=[scores[0], scores[-1]], range=[COLORS[0], FAINT]), legend=None
    )
    best = rest.transform_filter("datum.row == 0").mark_line(color=COLORS[1], strokeWidth=3)
    rules = alt.Chart(_values([{"axis": key} for key in columns])).mark_rule(color=FAINT).encode(x=x)
    labels = alt.Chart(_values(ticks)).mark_text(align="left", dx=5, fontSize=10).encode(x=x, y=y, text="label:N")
    chart = rules + rest.mark_line(opacity=0.6, strokeWidth=1.5).encode(color=colors) + best + labels
    return chart.properties(description=description)


def crowd(runs: Sequence[tuple[str, str, Points]], x: str, y: str, description: str) -> Chart:
    """Curves of runs, given as (run, setting, points), best setting first; the best is coloured and on top."""
    kinds = ("best setting", "other settings")
    legend = alt.Legend(orient="top", title=None, symbolOpacity=1, symbolStrokeWidth=3)
    color = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[COLORS[1], FAINT]),
        legend=legend if len({setting for _, setting, _ in runs}) > 1 else None,
    )
    parts: dict[str, list[dict[str, Any]]] = {}
    for run, setting, points in runs:
        kind = kinds[setting != runs[0][1]]
        data = [{"run": run, "setting": setting, "kind": kind, "x": at, "y": value} for at, value in _thinned(points)]
        parts.setdefault(kind, []).extend(data)
    encoding = {
        "x": _x(x, [at for *_, points in runs for at, _ in points]),
        "y": _y([value for *_, points in runs for _, value in points]),
        "detail": "run:N",
        "color": color,
        "tooltip": [alt.Tooltip("setting:N"), alt.Tooltip("run:N"), _tip("x", x), _tip("y", y)],
    }
    looks: list[dict[str, Any]] = [{"strokeWidth": 2.5}, {"strokeWidth": 1, "opacity": 0.45}]
    layers = [
        alt.Chart(_values(data)).mark_line(**look).encode(**encoding)
        for data, look in zip(parts.values(), looks, strict=False)
    ]
    return alt.layer(*reversed(layers)).properties(description=description)


def for_page(chart: Chart, height: int = 260) -> dict[str, Any]:
    """The specification of a chart that is as wide as the page allows."""
    return _spec(chart.properties(width="container", height=height, autosize=alt.AutoSizeParams(type="fit-x")))


def picture(charts: Sequence[tuple[str, Chart]], title: str) -> bytes:
    """One PNG of all charts, two per row, each under its title."""
    import vl_convert

    sized = [chart.properties(title=name, width=420, height=260) for name, chart in charts]
    spec = alt.concat(*sized, columns=2, title=alt.TitleParams(title, anchor="start", fontSize=16))
    independent = spec.resolve_scale(color="independent", opacity="independent")
    return vl_convert.vegalite_to_png(_spec(independent.configure(font="sans-serif", background="white")))


def _spec(chart: Chart) -> dict[str, Any]:
    """The specification, with all its texts safe to draw."""
    spec: dict[str, Any] = all_printable(chart.to_dict(), _drawable)
    return spec


def _drawable(text: str) -> str:
    """Control characters abort the process inside vl-convert, and Vega-Lite pastes titles into code unescaped."""
    return printable(text).translate({ord("\n"): " ", ord("\\"): "\N{BIG REVERSE SOLIDUS}"})


def short(number: float, digits: int = 3) -> str:
    """Rounded to `digits` significant digits, as a person would write it."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    exponent = math.floor(math.log10(abs(number)))
    if -4 <= exponent < 9:
        decimals = digits - 1 - exponent
        return f"{round(number, decimals):,.{max(0, decimals)}f}"
    return f"{number:.{digits - 1}e}"


def _values(data: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(data))


def _x(title: str, places: Sequence[float]) -> alt.X:
    """Ticks at whole numbers only: half an epoch means nothing."""
    low, high = math.floor(min(places)), math.ceil(max(places))
    step = next(n * 10**e for e in range(12) for n in (1, 2, 5) if (high - low) / (n * 10**e) <= MOST_TICKS)
    ticks = list(range(-(-low // step) * step, high + 1, step))
    axis = alt.Axis(grid=False, values=ticks, format="~s" if high >= 10_000 else "d")
    return alt.X("x:Q", title=title, scale=alt.Scale(nice=False, zero=False), axis=axis)


def _y(values: Sequence[float], zero: bool = False) -> alt.Y:
    """Logarithmic, with a title that says so, where that shows more; a constant curve is shown against zero."""
    if not _is_wide(values):
        return alt.Y("y:Q", title=None, scale=alt.Scale(zero=zero or min(values) == max(values)))
    low, high = min(values), max(values)
    powers = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ticks = [n * power for power in powers for n in ((1, 2, 5) if high / low < 2000 else (1,))]
    axis = alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format="~g")
    return alt.Y("y:Q", title="log scale", scale=alt.Scale(type="log", nice=False), axis=axis)


def _color(names: Sequence[str]) -> alt.Color:
    colors = [COLORS[i % len(COLORS)] for i in range(len(names))]
    return alt.Color(
        "series:N",
        sort=None,
        scale=alt.Scale(domain=list(names), range=colors),
        legend=alt.Legend(orient="top", title=None, columns=3),
    )


def _tip(field: str, title: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=title, format=".4~g")


def _thinned(points: Points) -> Points:
    """At most about `MOST_POINTS` points at equal distances, and the last one."""
    stride = math.ceil(len(points) / MOST_POINTS)
    return [*points[: -1 : stride or 1], points[-1]] if points else points


def _is_wide(values: Iterable[float], ratio: float = 20) -> bool:
    """Whether positive values spread so far that they need a logarithmic scale."""
    known = list(values)
    return bool(known) and min(known) > 0 and max(known) / min(known) > ratio


def _is_geometric(values: Sequence[float]) -> bool:
    """Whether a setting was varied by factors rather than by constant steps."""
    low, high = min(values), max(values)
    return _is_wide(values, 9.9) and sorted(values)[len(values) // 2] < 0.6 * (low + high) / 2


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _axis(values: Sequence[Any]) -> tuple[list[float], dict[str, float]]:
    """Position of each value between 0 and 1, and label -> position."""
    if _are_numbers(values):
        log = math.log10 if _is_geometric(values) else float
        low, high = log(min(values)), log(max(values))
        places = [(log(value) - low) / (high - low) if high > low else 0.5 for value in values]
    else:
        order = {value: i for i, value in enumerate(dict.fromkeys(map(str, values)))}
        places = [order[str(value)] / max(1, len(order) - 1) for value in values]
    known = dict(zip(values, places, strict=True))
    if len(known) > 5 and _are_numbers(values):
        known = {value: known[value] for value in (min(values), max(values))}
    return places, {f"{v:.4g}" if isinstance(v, float) else str(v): place for v, place in known.items()}
