"""The report of a run: did it learn, did it overfit, was the learning rate right, which classes are mistaken?"""

import math
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from runwright.pages.charts import confusion, lines, short
from runwright.pages.page import Figure, Image, Page, Section, Table, Tile, is_share, percent, score
from runwright.pages.pictures import as_image
from runwright.rundir.curves import Curves, read_curves, steps_per_epoch
from runwright.rundir.files import CONFIG, CURVES_PICTURE, ERROR
from runwright.rundir.read import (
    read_error,
    read_metrics,
    read_overrides,
    read_provenance,
    read_results,
    read_values,
)
from runwright.sweeps.table import duration

STAGES = {"train": "training", "val": "validation"}
NAMES = {"acc": "accuracy"}
MOST_CLASSES = 30  # in a chart or a table
NOT_FINITE = re.compile(r"(is|are) (-?inf|nan|not finite)\b")  # in the error of a run
LARGEST_IMAGE = 512  # pixels, height or width
OVERFIT, STALLED = 0.05, 0.02  # rise, relative to the lowest loss; smallest relative fall per epoch
LEARNED = 0.05  # smallest fall, relative to the first loss


@dataclass
class Run:
    """What the run directory holds; empty where a file is missing."""

    folder: Path
    metrics: dict[str, Any]
    config: dict[str, Any]
    curves: Curves
    results: dict[str, Any]
    provenance: list[dict[str, Any]]
    error: str  # the first line of error.txt

    def __post_init__(self) -> None:
        self.epoch_length = steps_per_epoch(self.curves)
        self.unit = "epoch" if self.epoch_length else "step"
        monitor = self.metrics.get("monitor") or self.config.get("monitor")
        self.monitor = monitor if isinstance(monitor, str) else "val_loss"

    def points(self, tag: str) -> list[tuple[float, float]]:
        """A curve over the epochs, or the steps, trained by then."""
        return [((step + 1) / (self.epoch_length or 1), value) for step, value in self.curves.get(tag, [])]

    @property
    def best_epoch(self) -> float | None:
        """The number of epochs trained by then; `metrics.json` and checkpoint names count from 0."""
        epoch = self.metrics.get("best_epoch")
        return None if epoch is None or not math.isfinite(epoch) or self.unit == "step" else epoch + 1


def read_run(folder: Path) -> Run:
    return Run(
        folder,
        read_metrics(folder),
        read_values(folder) if (folder / CONFIG).exists() else {},
        read_curves(folder),
        read_results(folder),
        read_provenance(folder),
        read_error(folder),
    )


def report_run(folder: Path) -> Path:
    """Write `report.html`, and `curves.png` if there are curves, into the run's directory; returns the page's path.

    Raises:
        InputError: a file in the directory is not one of a run.
    """
    run = read_run(folder)
    name = run.metrics.get("name") or run.config.get("name") or folder.resolve().parent.name
    learning, rate = _learning(run), _rate(run)
    classes = [_classes(run)] if run.results else []
    mistakes = [_mistakes(run)] if run.results.get("mistakes") else []
    sections = [learning, rate, *classes, *mistakes, _settings(run), _again(run)]
    page = Page(
        f"{name}, {folder.resolve().name}",
        list(_lead(run)),
        list(_tiles(run)),
        sections,
        CURVES_PICTURE,
        error=_failure(run),
    )
    return page.write(folder, [*learning.figures, *rate.figures])


def _failure(run: Run) -> str:
    if run.metrics:
        return ""
    if run.error:
        return f"The run failed: {run.error}. {ERROR} in the same folder has the traceback."
    return "The run has not finished; this is what it has recorded so far."


def _lead(run: Run) -> Iterator[str]:
    metrics = run.metrics
    if not metrics:
        return
    epochs, times = metrics.get("epochs"), [each["started"][:16].replace("T", " ") for each in run.provenance]
    begun = [f"Started {', resumed '.join(times)}"] if times else []
    trained = f"{epochs} epoch{'' if epochs == 1 else 's'}, {metrics.get('steps')} steps"
    yield "; ".join([*begun, trained, str(metrics.get("stopped")).rstrip(".")]) + "."


def _tiles(run: Run) -> Iterator[Tile]:
    metrics = run.metrics
    if not metrics:
        return
    weights = "best checkpoint" if metrics.get("best_checkpoint") else "last weights"
    for key, value in sorted(metrics["test"].items(), key=lambda item: not is_share(item[0])):
        yield Tile(_title_of(key), score(key, value), f"of the {weights}")
    if run.monitor not in metrics["test"]:
        note = f"after epoch {metrics['best_epoch'] + 1}" if metrics.get("best_epoch") is not None else "last epoch"
        yield Tile(_title_of(run.monitor), score(run.monitor, metrics.get("best")), note)
    if run.monitor != "train_loss" and "train_loss" in metrics["fit"]:
        yield Tile("training loss", score("train_loss", metrics["fit"]["train_loss"]), "last epoch")
    speeds = sorted(value for _, value in run.curves.get("speed/samples_per_s", []))
    speed = f"{short(speeds[len(speeds) // 2])} samples/s" if speeds else ""
    if metrics.get("seconds"):
        yield Tile("time", duration(metrics["seconds"]), speed)


def _title_of(key: str) -> str:
    """`val_acc` as `validation accuracy`."""
    stage, _, name = key.partition("_")
    return f"{({**STAGES, 'test': 'test'}).get(stage, stage)} {NAMES.get(name, name)}".strip()


def _learning(run: Run) -> Section:
    section = Section("Did it learn, did it overfit?", [*_learned(run), *_overfitted(run)])
    if not run.curves:
        section.text.append(
            "There are no curves: the run wrote neither event files nor a metrics.csv (logger=tensorboard or csv)."
        )
    stage_of = re.compile(r"(?:train|val)_(\w+)")
    for name in dict.fromkeys(found[1] for tag in run.curves if (found := stage_of.fullmatch(tag))):
        series = {word: run.points(f"{stage}_{name}") for stage, word in STAGES.items()}
        if name == "loss" and len(series["training"]) < 3:  # single steps show more than one or two epochs
            series["training, single batches"] = run.points("train_loss_step")
        series = {word: points for word, points in series.items() if points}
        if not series or name == "loss_step":
            continue
        what = NAMES.get(name, name)
        best = run.best_epoch if run.monitor.endswith(f"_{name}") or name in ("loss", "acc") else None
        last = ", ".join(f"{word} {score(name, points[-1][1])} at the end" for word, points in series.items())
        chart = lines(series, run.unit, what, f"Line chart of the {what} by {run.unit}: {last}.", best)
        section.figures.append(Figure(what.replace(" ", "_"), what.capitalize(), chart))
    section.figures.sort(key=lambda figure: figure.name != "loss")
    return section


def _learned(run: Run) -> Iterator[str]:
    train = run.points("train_loss")
    if len(train) > 1:
        (since, first), (until, last) = train[0], train[-1]
        fell = f"{'fell' if last < first else 'rose'} from {short(first)} to {short(last)}"
        yield f"The training loss {fell} between {run.unit} {since:.3g} and {until:.3g}."
    acc, counts = run.metrics.get("test", {}).get("test_acc"), run.results.get("confusion")
    if acc is not None and counts:
        guess = max(map(sum, counts)) / max(1, sum(map(sum, counts)))
        yield (
            f"Of the test samples {percent(acc)} are classified correctly; "
            f"always naming the most frequent class would give {percent(guess)}."
        )


def _overfitted(run: Run) -> Iterator[str]:
    train, val = run.points("train_loss"), run.points("val_loss")
    if not run.curves:
        return
    if not val and not run.metrics:
        yield "No validation has been recorded yet, so no curve shows whether it overfits."
        return
    if not val:
        test, last = run.metrics.get("test", {}).get("test_loss"), run.metrics.get("fit", {}).get("train_loss")
        losses = f"; the test loss is {short(test)}, the training loss {short(last)}" if test and last else ""
        yield f"Without a validation set no curve shows whether it overfits{losses}."
        return
    at, lowest = min(val, key=lambda point: point[1])
    end, last = val[-1]
    there, rise = f"lowest after {run.unit} {at:.4g}, {short(lowest)}", last - lowest
    if at == end:
        yield f"The validation loss was lowest at the end, {short(lowest)}: no overfitting, and more training may help."
    elif rise > OVERFIT * abs(lowest) and train and train[-1][1] > train[0][1]:
        yield (
            f"It got worse, but not by overfitting: the validation loss is {there}, and {short(last)} at the end, "
            "but the training loss rose as well."
        )
    elif rise > OVERFIT * abs(lowest):
        more = percent(rise / lowest) if lowest > 0 else short(rise)
        yield (
            f"Judging by the loss, it overfits: the validation loss is {there}, and {more} higher at the end. "
            "Early stopping, dropout, weight decay and more data help against it."
        )
    else:
        yield f"It hardly overfits: the validation loss is {there}, and {short(last)} at the end."


def _rate(run: Run) -> Section:
    section = Section("Was the learning rate right?", list(_rate_verdict(run)))
    rates = {tag.removeprefix("lr/"): run.points(tag) for tag in run.curves if tag.startswith("lr/")}
    if len({tuple(points) for points in rates.values()}) == 1:  # the usual case: all parameter groups share one rate
        rates = {"all weights": next(iter(rates.values()))}
    norms = {tag.removeprefix("norm/"): run.points(tag) for tag in run.curves if tag.startswith("norm/")}
    norms = dict(sorted(norms.items(), key=lambda item: item[0] != "all")[:6])
    for title, series in (("learning rates", rates), ("weight norms", norms)):
        if series:
            ends = ", ".join(f"{key} from {short(p[0][1])} to {short(p[-1][1])}" for key, p in series.items())
            description = f"Line chart of the {title} by {run.unit}: {ends}."
            chart = lines(series, run.unit, title, description, zero=series is rates)
            section.figures.append(Figure(title.replace(" ", "_"), title.capitalize(), chart))
        elif run.curves:
            section.text.append(f"No {title} were logged.")
    return section


def _rate_verdict(run: Run) -> Iterator[str]:
    losses = [value for _, value in run.points("train_loss")]
    if not run.metrics and NOT_FINITE.search(run.error):
        yield "It ended in NaN or infinity, which a lower rate usually prevents."
        return
    if len(losses) < 4:
        yield "This run has recorded too few epochs to tell." if run.curves else "There are no curves to tell by."
        return
    rises = sum(later > earlier for earlier, later in pairwise(losses))
    fall = 1 - (losses[-1] / losses[-4]) ** (1 / 3) if 0 < losses[-1] < losses[-4] else 0.0
    first, last = short(losses[0]), short(losses[-1])
    rose = f"The training loss rose in {rises} of {len(losses) - 1} epochs"
    if rises > (len(losses) - 1) / 3:
        yield f"{rose}: with a lower rate, or one that decays, it would fall more steadily."
    elif fall > STALLED:
        yield (
            f"{rose}, so the rate is not too high. At the end it still fell by {percent(fall)} per epoch: a higher "
            "rate or a longer run would lower the training loss further, though perhaps not the validation loss."
        )
    elif losses[0] - losses[-1] < LEARNED * abs(losses[0]):
        yield (
            f"{rose}, but overall it only went from {first} to {last}: it hardly learned. Try a much higher or a much "
            "lower rate to see whether the rate is the cause."
        )
    else:
        yield f"{rose}, and it hardly falls at the end: the rate is not too high, and the run is long enough."


def _classes(run: Run) -> Section:
    section = Section("Which classes are mistaken for which?")
    names, counts = run.results["class_names"], run.results["confusion"]
    total, right = sum(map(sum, counts)), sum(row[i] for i, row in enumerate(counts))
    cells = ((n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row))
    confused = sorted((cell for cell in cells if cell[0] and cell[1] != cell[2]), reverse=True)
    section.text.append(f"{total - right:,} of {total:,} test samples are classified wrongly.")
    if confused:
        often = [f"{names[i]} taken for {names[j]} ({n} of {sum(counts[i])})" for n, i, j in confused[:3]]
        section.text.append(f"The most frequent mistakes: {', '.join(often)}.")
    if len(names) <= MOST_CLASSES:
        description = f"Confusion matrix of {len(names)} classes: {right:,} of {total:,} on the diagonal."
        chart = confusion(counts, names, description)
        section.figures.append(Figure("confusion", "True and predicted class", chart, 60 + 26 * len(names)))
    rows = sorted(_scores(names, counts), key=lambda row: row[3])
    rest = f"; {MOST_CLASSES} of {len(rows)}" if len(rows) > MOST_CLASSES else ""
    shown = [[name, *map(percent, shares), f"{n:,}"] for name, *shares, n in rows[:MOST_CLASSES]]
    section.tables.append(
        Table(f"The classes, worst F1 first{rest}", ["class", "precision", "recall", "F1", "samples"], shown)
    )
    return section


def _scores(names: list[str], counts: list[list[int]]) -> Iterator[tuple[str, float, float, float, int]]:
    for i, name in enumerate(names):
        hits, true, predicted = counts[i][i], sum(counts[i]), sum(row[i] for row in counts)
        yield name, hits / max(1, predicted), hits / max(1, true), 2 * hits / max(1, true + predicted), true


def _mistakes(run: Run) -> Section:
    section, rows = Section("What is it most wrong about?"), []
    names, mistakes = run.results["class_names"], run.results["mistakes"]
    section.text.append(f"The {len(mistakes)} most confident mistakes, most confident first.")
    for each in mistakes:
        true, predicted, probability = names[each["target"]], names[each["predicted"]], percent(each["probability"])
        source = _as_png(each["sample_shape"], each["sample"])
        if source:
            alt = f"Test sample {each.get('index')}: {true}, taken for {predicted}"
            section.images.append(Image(source, alt, f"{true}, taken for {predicted}, {probability}"))
        else:
            values = ", ".join(map(short, each["sample"][:8])) + (", ..." if len(each["sample"]) > 8 else "")
            rows.append([true, predicted, probability, values])
    if rows:
        section.tables.append(Table("", ["true", "predicted", "probability", "sample, as the model got it"], rows))
    return section


def _as_png(shape: list[int], sample: list[float]) -> str:
    """A data URI of the sample as an image; empty if it has not the shape of one."""
    image = as_image(sample, shape) if max(shape, default=0) <= LARGEST_IMAGE else None
    if image is None:
        return ""
    image.save(buffer := BytesIO(), "PNG")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def _settings(run: Run) -> Section:
    section = Section("What differs from the defaults?")
    differences = run.metrics.get("differences")
    if isinstance(differences, dict):
        rows = [(key, *map(str, pair)) for key, pair in differences.items() if isinstance(pair, list)]
        heads = ["key", "default", "here"]
    else:  # a run that has not finished has only its overrides
        rows, heads = [each.partition("=")[::2] for each in read_overrides(run.folder)], ["key", "here"]
    if rows:
        section.tables.append(Table("", heads, rows))
    elif isinstance(differences, dict):
        section.text.append("Nothing.")
    else:
        section.text.append("This run has no overrides.")
    if run.config:
        section.more = ("All values", yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))
    return section


def _again(run: Run) -> Section:
    section, metrics = Section("How to run it again"), run.metrics
    origin, where = (run.provenance or [{}])[-1], shlex.quote(str(run.folder))
    git, versions = origin.get("git") or {}, origin.get("versions", {})
    commands = [f"git checkout {shlex.quote(str(git['commit']))}"] if git.get("commit") else []
    verb = "from" if metrics else "resume"
    section.code = "\n".join([*commands, f"python scripts/train.py {verb}={where}"])
    if git.get("dirty"):
        section.text.append("Tracked files had changes that were not committed; they are not recorded.")
    if not metrics:
        section.text.append("This resumes the run where it stopped.")
        if run.error:
            section.text.append(
                "It fails in the same way again unless the cause has been fixed. "
                "To start a new run with other values, use from= instead of resume=."
            )
    facts = {"versions": ", ".join(f"{name} {number}" for name, number in versions.items()) or "unknown"}
    if metrics:
        checkpoint = metrics.get("best_checkpoint") or metrics.get("last_checkpoint") or "none was kept"
        devices = f"{metrics.get('devices')} x {metrics.get('accelerator')}"
        facts = {"seed": str(metrics.get("seed")), "devices": devices, **facts, "checkpoint": checkpoint}
    section.tables.append(Table("", [], [(key, str(value)) for key, value in facts.items()]))
    return section
