"""Reports: what they say of runs, that they say so of any run, and that what is in a run stays text."""

import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import Result
from toy import HOSTILE, make_run

from runwright import report
from runwright.config.errors import InputError
from runwright.pages import charts
from runwright.pages.charts import short
from runwright.report import write_report
from runwright.report.sweep import _short_key
from runwright.rundir.curves import read_curves

FAST = ("trainer.max_epochs=2", "trainer.limit_train_batches=4", "model.hidden=[8]")


class Page(HTMLParser):
    """What a page holds: its text, the specifications of its charts by name, and every element and attribute."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.charts, self.elements, self._name, self._inside = "", {}, [], "", ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._name = dict(attrs).get("id") or self._name
        self._inside = str(dict(attrs).get("type")) if tag == "script" else tag

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.charts[self._name] = json.loads(data)
        elif self._inside not in ("None", "style"):  # a script, or a style sheet
            self.text += data
        self._inside = "" if self._inside == "application/json" else self._inside

    def values(self, chart: str) -> list[dict[str, Any]]:
        return [row for rows in self.charts[chart]["datasets"].values() for row in rows]


def test_a_run_writes_its_report_and_its_picture(cli: Callable[..., Result]) -> None:
    folder = make_run(Path("runs/toy"))
    assert cli(folder, script="report").out == "runs/toy/report.html\n"
    page = Page(folder / "report.html")
    assert [(row["x"], row["y"]) for row in page.values("loss") if row.get("series") == "validation"] == [
        (1, 0.75),
        (2, 0.25),
        (3, 0.5),
    ]
    assert "best: epoch 2" in [row.get("label") for row in page.values("loss")]
    assert "overfits: the validation loss is lowest after epoch 2, 0.250, and 100 % higher at the end" in page.text
    assert "75.0 %" in page.text
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.reports
def test_what_training_leaves_is_reported(cli: Callable[..., Result]) -> None:
    result = cli(*FAST)
    page = Page(result.run_dir / "report.html")
    assert {"loss", "accuracy", "weight_norms", "confusion"} == set(page.charts)
    assert "No learning rates were logged." in page.text  # in so few steps
    assert result.out.endswith(f"report: {result.run_dir.relative_to(Path.cwd())}/report.html\n")
    counted = [row["count"] for row in page.values("confusion")]
    assert sum(counted) == 359
    acc = sum(row["count"] for row in page.values("confusion") if row["right"]) / 359
    assert acc == pytest.approx(result.metrics["test"]["test_acc"])
    assert sum(tag == "img" for tag, _ in page.elements) == 25
    last = [row["y"] for row in page.values("accuracy") if row.get("x") == 2 and "y" in row]
    assert last == [pytest.approx(result.metrics["fit"]["val_acc"])]
    assert "irectory" not in (result.run_dir / "train.log").read_text().replace("run directory", "")


@pytest.mark.reports
@pytest.mark.parametrize(("wanted", "of_jobs"), [("true", 0), ("each", 2), ("false", 0)])
def test_a_sweep_has_one_report_and_its_jobs_only_if_asked(
    cli: Callable[..., Result], wanted: str, of_jobs: int
) -> None:
    result = cli("-m", "debug=fast_dev_run", f"report={wanted}", "seed=0,1", "hydra.sweep.dir=sweep")
    assert result.status == 0, result.err
    assert Path("sweep/report.html").is_file() == (wanted != "false")
    assert ("report: sweep/report.html" in result.out.replace(f"{Path.cwd()}/", "")) == (wanted != "false")
    assert sum((run_dir / "report.html").is_file() for run_dir in result.run_dirs) == of_jobs


@pytest.mark.reports
def test_a_run_outlives_its_report(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(directory: Path) -> Path:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(report, "write_report", fail)
    result = cli("debug=fast_dev_run", "report=true")
    assert result.status == 0
    assert "no report: RuntimeError: no fonts" in result.out


@pytest.mark.reports
def test_a_page_outlives_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(drawn: object, title: str) -> bytes:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(charts, "picture", fail)
    folder = make_run(tmp_path / "run")
    assert report.report_line(folder) == f"report: {folder}/report.html, but no picture: RuntimeError: no fonts"
    assert (folder / "report.html").is_file()


def test_what_a_run_holds_stays_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", name=HOSTILE, settings={"note": HOSTILE}, stopped=HOSTILE)
    made = {"started": HOSTILE, "git": {"commit": HOSTILE}, "versions": {HOSTILE: HOSTILE}}
    (folder / "provenance.json").write_text(json.dumps([made]))
    mistake = {"index": 0, "target": 0, "predicted": 1, "probability": 0.9, "sample_shape": [2], "sample": [0.5, 1]}
    results = {"class_names": [HOSTILE, "b"], "confusion": [[3, 1], [0, 4]], "mistakes": [mistake]}
    (folder / "test_results.json").write_text(json.dumps(results))
    (folder / "error.txt").write_text(HOSTILE)
    page = Page(write_report(folder))
    assert page.text.count(HOSTILE) >= 5
    assert HOSTILE in [row["true"] for row in page.values("confusion")]
    sources = [attributes for tag, attributes in page.elements if tag in ("img", "script", "link", "iframe", "a")]
    assert all(set(attributes) <= {"type"} for attributes in sources)
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    make_run(tmp_path / "sweep" / "0", name=HOSTILE, settings={HOSTILE: 1})
    make_run(tmp_path / "sweep" / "1", name=HOSTILE, settings={HOSTILE: HOSTILE})
    page = Page(write_report(tmp_path / "sweep"))
    assert HOSTILE in page.text
    assert sum(tag == "script" and not attributes for tag, attributes in page.elements) == 2


def test_only_the_two_scripts_of_a_page_may_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run")))
    (policy,) = [each["content"] for tag, each in page.elements if tag == "meta" and "http-equiv" in each]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert len(re.findall("'sha256-[^']+'", rules.pop("script-src"))) == 2
    assert "http" not in policy


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("test_results.json", '{"class_names": ["a"], "confusion": [[1, 2]], "mistakes": []}'),
        ("test_results.json", '{"class_names": ["a"], "confusion": [["x"]], "mistakes": []}'),
        ("test_results.json", "[" * 100_000),
        ("metrics.json", "[]"),
        ("metrics.json", '{"name": "a", "monitor": "b", "mode": "min", "fit": {}, "test": {"acc": "<b>"}}'),
        ("metrics.json", '{"name": "a", "monitor": "b", "mode": "min"}'),
        (
            "metrics.json",
            f'{{"name": "a", "monitor": "b", "mode": "min", "fit": {{}}, "test": {{"acc": {"9" * 400}}}}}',
        ),
        ("metrics.csv", "step,epoch,train_loss\nx,y,z"),
        ("metrics.csv", f"step,epoch,train_loss\n0,0,1\n{10**18},1,2"),
        ("metrics.csv", "step,epoch,train_loss\n-5,0,1"),
        ("config.yaml", "a: !!python/object:os.system {}"),
        ("overrides.yaml", "{}"),
        ("provenance.json", '[{"started": 3, "git": null, "versions": {}}]'),
    ],
)
def test_a_damaged_file_costs_a_sentence(cli: Callable[..., Result], file: str, content: str) -> None:
    folder = make_run(Path("run"))
    (folder / file).write_text(content)
    result = cli(folder, script="report")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"run/{file}: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(("directory", "said"), [("nowhere", "no such directory"), (".", "no runs")])
def test_a_directory_without_runs_costs_a_sentence(cli: Callable[..., Result], directory: str, said: str) -> None:
    result = cli(directory, script="report")
    assert (result.status, result.err) == (2, f"{directory}: {said}\n")


def test_an_image_as_large_as_a_wall_is_no_picture(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    shape, sample = [1, 600], [0.0] * 600
    mistake = {"index": 0, "target": 0, "predicted": 1, "probability": 1, "sample_shape": shape, "sample": sample}
    results = {"class_names": ["a", "b"], "confusion": [[0, 1], [0, 0]], "mistakes": [mistake]}
    (folder / "test_results.json").write_text(json.dumps(results))
    assert "img" not in [tag for tag, _ in Page(write_report(folder)).elements]


def test_a_resumed_run_says_when_it_began_and_when_it_was_resumed(tmp_path: Path) -> None:
    made = [{"started": f"2026-11-21T1{hour}:00:00+0000", "git": None, "versions": {}} for hour in range(2)]
    folder = make_run(tmp_path / "run")
    (folder / "provenance.json").write_text(json.dumps(made))
    assert "Started 2026-11-21 10:00, resumed 2026-11-21 11:00; 3 epochs" in Page(write_report(folder)).text


def test_a_part_without_data_is_a_sentence(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", fit={"train_loss": 0.125}, test={}, best_epoch=None)
    (folder / "metrics.csv").unlink()
    page = Page(write_report(folder))
    assert page.charts == {}
    assert "There are no curves" in page.text
    assert not (folder / "curves.png").exists()


def test_of_a_run_that_counted_no_classes_none_are_spoken_of(tmp_path: Path) -> None:
    text = Page(write_report(make_run(tmp_path / "run", test={"test_loss": 0.375}))).text
    assert "test loss" in text
    assert "class" not in text


@pytest.mark.parametrize(("error", "said"), [("", "has not finished"), ("disk full\n\ntrace", "failed: disk full.")])
def test_a_run_that_did_not_finish_says_so(tmp_path: Path, error: str, said: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.json").unlink()
    if error:
        (folder / "error.txt").write_text(error)
    (folder / "config.yaml").write_text("{data: {}, model: {}, task: {}, name: toy}")
    page = Page(write_report(folder))
    assert said in page.text
    assert "loss" in page.charts


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["0,0,-1,-2", "1,1,-2,-4", "2,2,-3,-3"], "lowest after epoch 2, -4.00, and 1.00 higher at the end"),
        (["0,0,1,1", "1,1,0.5,0", "2,2,0.25,1"], "lowest after epoch 2, 0, and 1.00 higher at the end"),
        (["0,0,1,1", "1,1,2,2", "2,2,3,3"], "but the training loss rose as well"),
        (["0,0,1.7e308,1", "1,1,1,2"], "has recorded too few epochs"),
        ([f"{i},{i},{2.31 - i / 1000},1" for i in range(5)], "it hardly learned"),
    ],
)
def test_losses_of_any_size_and_sign_are_judged(tmp_path: Path, rows: Sequence[str], said: str) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train_loss,val_loss", *rows]))
    assert said in Page(write_report(folder)).text


def test_a_run_that_failed_before_its_first_validation_is_not_one_without(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "metrics.json").unlink()
    (folder / "metrics.csv").write_text("step,epoch,lr/SGD\n19,0,9.0")
    (folder / "error.txt").write_text("step 3: the loss is nan; first layer affected: model.output\n")
    text = Page(write_report(folder)).text
    assert "Without a validation set" not in text
    assert "which a lower rate usually prevents" in text
    assert "It fails in the same way again" in text


def test_a_setting_that_is_infinite_is_drawn_by_its_name(tmp_path: Path) -> None:
    for i, value in enumerate(["inf", "1.0", float("inf"), "nan"]):
        make_run(tmp_path / str(i), best=float(i), settings={"callbacks.max_norm.max_norm": value})
    page = Page(write_report(tmp_path))
    assert "Infinity" not in (tmp_path / "report.html").read_text().partition("application/json")[2][:100_000]
    assert {row["value"] for row in page.values("effect_0")} == {"inf", 1.0, "nan"}


def sweep(folder: Path, bests: dict[float, Sequence[float]]) -> Page:
    """Learning rate -> best validation loss from each seed."""
    for rate, values in bests.items():
        for seed, best in enumerate(values):
            make_run(folder / f"{rate}-{seed}", best=best, settings={"optimizer.lr": rate, "seed": seed})
    return Page(write_report(folder))


def test_the_report_of_a_sweep_holds_the_means_and_spreads_of_its_settings(tmp_path: Path) -> None:
    page = sweep(tmp_path, {0.1: (0.2, 0.3, 0.4), 0.01: (1.1, 1.2, 1.3)})
    found = {row["value"]: (row["mean"], row["low"], row["high"]) for row in page.values("effect_0") if "row" in row}
    assert found == {0.1: pytest.approx((0.3, 0.2, 0.4)), 0.01: pytest.approx((1.2, 1.1, 1.3))}
    assert set(page.charts) == {"effect_0", "curves"}
    assert {row["run"] for row in page.values("curves") if row["kind"] == "best setting"} == {
        f"0.1-{seed}" for seed in range(3)
    }
    assert "Fewer than two settings were varied." in page.text
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("bests", "said"),
    [
        ({0.1: (0.2, 0.3, 0.4), 0.01: (1.1, 1.2, 1.3)}, "more than the seeds differ by chance"),
        ({0.1: (0.2, 0.3, 0.4), 0.01: (0.5, 0.3, 0.2)}, "that may well be luck"),
        ({0.1: (0.2,), 0.01: (0.3,)}, "one run per setting cannot show whether that is luck"),
        ({0.1: (0.2, 0.4)}, "Over 2 seeds it goes from 0.200 to 0.400, with a standard deviation of 0.14"),
    ],
)
def test_whether_the_best_is_luck(tmp_path: Path, bests: dict[float, Sequence[float]], said: str) -> None:
    assert said in sweep(tmp_path, bests).text


def test_the_uncertainty_of_a_difference_is_students(tmp_path: Path) -> None:
    """Of the paired differences 0.1, 0.2, 0.3: their mean, and 4.303 times 0.1 / sqrt(3)."""
    page = sweep(tmp_path, {0.1: (0.2, 0.3, 0.4), 0.01: (0.3, 0.5, 0.7)})
    assert "The difference is 0.20 ± 0.25 (95 % confidence, 3 pairs of the same seeds)" in page.text


def test_two_settings_are_a_heat_map_and_all_are_parallel_coordinates(tmp_path: Path) -> None:
    for i, (rate, width) in enumerate([(0.1, 8), (0.1, 16), (0.01, 8), (0.01, 16)]):
        make_run(tmp_path / str(i), best=float(i), settings={"optimizer.lr": rate, "model.width": width})
    page = Page(write_report(tmp_path))
    assert {"heat_map", "parallel", "curves", "effect_0", "effect_1"} == set(page.charts)
    cells = {(row["x"], row["y"]): row["mean"] for row in page.values("heat_map")}
    assert cells == {("0.1", "8"): 0, ("0.1", "16"): 1, ("0.01", "8"): 2, ("0.01", "16"): 3}


def test_lists_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i, hidden in enumerate(["[128]", "[32,32]", "[0.5]", "[32]", "[0.25]", "[]"]):
        make_run(tmp_path / str(i), best=float(i), settings={"model.hidden": hidden})
    found = [row["value"] for row in Page(write_report(tmp_path)).values("effect_0") if "row" in row]
    assert found == ["[]", "[0.25]", "[0.5]", "[32]", "[32,32]", "[128]"]


def test_failed_jobs_are_listed(tmp_path: Path) -> None:
    make_run(tmp_path / "0")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "error.txt").write_text("optimizer.lr=9: too high\n\ntrace")
    page = Page(write_report(tmp_path))
    assert "failed: optimizer.lr=9: too high" in page.text


def test_a_sweep_in_which_nothing_finished(tmp_path: Path) -> None:
    for job in ("0", "1"):
        (tmp_path / job).mkdir()
        (tmp_path / job / "error.txt").write_text("no such data")
    page = Page(write_report(tmp_path))
    assert "No run has finished" in page.text
    assert page.charts == {}


def test_curves_that_cannot_be_read_are_said_to_be(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "events.out.tfevents.1").write_bytes(b"\x07\0\0\0\0\0\0\0garbage that is no record")
    assert read_curves(folder) == {}
    (folder / "events.out.tfevents.1").unlink()
    (folder / "metrics.csv").write_text("step,a\n1,nan\n2,1.5")
    assert read_curves(folder) == {"a": [(2, 1.5)]}
    (folder / "metrics.csv").write_text("step,a\none,1.5")
    with pytest.raises(InputError, match="not the curves of a run"):
        read_curves(folder)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0.0019, "0.00190"),
        (0.1021, "0.102"),
        (12.18, "12.2"),
        (33091, "33,100"),
        (0, "0"),
        (-1.5, "-1.50"),
        (3e-9, "3.00e-09"),
    ],
)
def test_numbers_are_rounded_as_a_person_would(number: float, said: str) -> None:
    assert short(number) == said


def test_settings_are_told_apart_by_the_shortest_ends_of_their_keys() -> None:
    keys = ["scheduler.patience", "callbacks.early_stopping.patience", "optimizer.lr", "patience"]
    ends = ["scheduler.patience", "early_stopping.patience", "lr", "patience"]
    assert [_short_key(key, keys) for key in keys] == ends
