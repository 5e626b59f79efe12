"""What people see: the reports, and TensorBoard, in a browser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import IS_THERE, Browser, browser, tensorboard
from conftest import Result
from toy import HOSTILE, make_run

from runwright.pages.charts import short
from runwright.pages.page import percent
from runwright.report import write_report

pytestmark = pytest.mark.skipif(not IS_THERE, reason="takes chromium and chromedriver")
VIEWS = [(1280, False), (1280, True), (390, False), (390, True)]
LABELS = "return all(document).map(e => e.getAttribute('aria-label')).filter(e => e)"
COLORS = """const of = (selector, key) => getComputedStyle(document.querySelector(selector))[key];
return [of("body", "backgroundColor"), of("body", "color"), of("figure svg text", "fill")]"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports of a run and of a sweep of two settings over three seeds."""
    folder = tmp_path_factory.mktemp("reports")
    run = make_run(folder / "run")
    sample = [i / 16 for i in range(16)]
    mistake = {"index": 5, "target": 0, "predicted": 1, "probability": 0.9, "sample_shape": [4, 4], "sample": sample}
    results = {"class_names": ["cat", "dog"], "confusion": [[30, 10], [0, 60]], "mistakes": [mistake]}
    (run / "test_results.json").write_text(json.dumps(results))
    for i in range(12):
        rate, width, seed = (0.1, 0.01)[i % 2], (8, 16)[i // 2 % 2], i // 4
        settings = {"optimizer.lr": rate, "model.width": width, "seed": seed}
        make_run(folder / "sweep" / str(i), best=rate + width + seed / 1000, settings=settings)
    return {"run": write_report(run), "sweep": write_report(folder / "sweep")}


@pytest.mark.parametrize(("width", "dark"), VIEWS)
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_a_report_is_readable_in_any_window(
    window: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    window.open(pages[name], width, dark)
    assert window.complaints() == []
    assert [url for url in window.requests() if not url.startswith(("file:", "data:"))] == []
    assert window.ask("return document.documentElement.scrollWidth") <= width
    paper, ink, labels = ([int(n) for n in color[4:-1].split(",")] for color in window.ask(COLORS))
    assert (sum(paper) < sum(ink)) == dark
    assert labels == ink
    drawings = window.ask(
        "return [...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().width)"
    )
    assert len(drawings) == len(window.ask("return [...document.querySelectorAll('figure[id]')]"))
    assert all(200 < drawn <= width for drawn in drawings)


def test_a_report_in_the_dark_is_printed_on_white_paper(window: Browser, pages: dict[str, Path]) -> None:
    window.open(pages["run"], dark=True, media="print")
    assert window.ask(COLORS)[0] == "rgb(255, 255, 255)"
    assert window.ask(COLORS)[1] == window.ask(COLORS)[2]


def test_the_charts_of_a_run_hold_its_figures_and_say_them(window: Browser, pages: dict[str, Path]) -> None:
    metrics = json.loads((pages["run"].parent / "metrics.json").read_text())
    window.open(pages["run"])
    names = window.ask("return [...document.querySelectorAll('figure[id]')].map(e => e.id)")
    assert names == ["loss", "confusion"]
    shown, labels = window.text(), window.ask(LABELS)
    assert percent(metrics["test"]["test_acc"]) in shown
    assert short(metrics["test"]["test_loss"]) in shown
    assert "best: epoch 2" in shown
    for epoch, loss in ((1, 0.75), (2, 0.25), (3, 0.5)):
        assert any(f"epoch: {epoch};" in label and f"loss: {loss}" in label for label in labels)
    assert "Line chart of the loss by epoch: training 0.125 at the end, validation 0.500 at the end." in labels
    assert any("true: cat" in label and "predicted: dog" in label and "count: 10" in label for label in labels)
    images = window.ask("return [...document.images].map(e => [e.alt, e.naturalWidth])")
    assert images == [["Test sample 5: cat, taken for dog", 4]]


def test_the_charts_of_a_sweep_hold_the_figures_of_its_runs(window: Browser, pages: dict[str, Path]) -> None:
    window.open(pages["sweep"])
    names = window.ask("return [...document.querySelectorAll('figure[id]')].map(e => e.id)")
    assert names == ["effect_0", "effect_1", "heat_map", "parallel", "curves"]
    labels = window.ask(LABELS)
    assert any("lr=0.01, width=8" in label and "val_loss: 8.011" in label for label in labels)
    cells = window.ask("return [...document.querySelectorAll('#heat_map svg text')].map(e => e.textContent)")
    assert {"8.01", "8.10", "16.0", "16.1"} <= set(cells)
    lines = window.ask("return document.querySelectorAll('#curves .mark-line path').length")
    assert lines == 12


def test_what_a_stranger_wrote_does_not_run(window: Browser, tmp_path: Path) -> None:
    for i in range(2):
        make_run(tmp_path / "sweep" / str(i), name=HOSTILE, settings={"width": i, HOSTILE: f"{i}{HOSTILE}"})
    for page in (write_report(tmp_path / "sweep"), write_report(tmp_path / "sweep" / "0")):
        window.open(page)
        assert window.complaints() == []
        assert HOSTILE in window.text()
        assert window.ask(
            "return [document.images.length, document.scripts.length - document.querySelectorAll('figure[id]').length]"
        ) == [0, 2]


@pytest.fixture
def served(cli: Callable[..., Result]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """TensorBoard's address on a sweep of four runs, and their metrics."""
    fast = ("trainer.max_epochs=2", "trainer.limit_train_batches=5", "model.hidden=[8]", "trainer.log_every_n_steps=2")
    result = cli("-m", "optimizer.lr=0.1,0.2", "seed=0,1", *fast)
    assert result.status == 0, result.err
    metrics = [json.loads((run_dir / "metrics.json").read_text()) for run_dir in result.run_dirs]
    with tensorboard(result.run_dirs[0].parent) as address:
        yield address, metrics


@pytest.mark.slow
def test_tensorboard_opens_well_on_a_sweep(window: Browser, served: tuple[str, list[dict[str, Any]]]) -> None:
    address, metrics = served
    window.requests()
    for width, tab, texts in [
        (1280, "custom_scalars", ["loss", "acc", "learning rate", "norms of the weights"]),
        (390, "custom_scalars", ["loss", "acc", "learning rate", "norms of the weights"]),
        (1280, "images", ["test/confusion", "test/mistakes"]),
        (1280, "hparams", ["optimizer.lr", "seed", *(f"{each['fit']['val_loss']:#.5g}" for each in metrics)]),
    ]:
        window.open("about:blank")  # for another tab of the same address is no new page
        window.open(f"{address}#{tab}", width)
        for text in texts:
            window.wait(f"const text = {text!r}; return all(document).some(e => e.textContent.trim() == text)")
    window.click("Parallel Coordinates View")
    window.wait("return all(document).filter(e => e.localName == 'path').length >= 4")
    assert window.complaints("SEVERE") == []
    asked = [url for url in window.requests() if not url.startswith((address, "data:", "blob:", "about:"))]
    assert asked == []
