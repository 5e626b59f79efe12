"""Nothing that a file holds gives the terminal orders, or ends the process that draws it."""

import io
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONF, archive
from rich.console import Console
from toy import make_run

from runwright.config.arguments import complain, complaining
from runwright.config.errors import printable
from runwright.loggers.printable import Formatter
from runwright.loggers.terminal import Handler, print_summary
from runwright.pages.charts import confusion, crowd, effect, for_page, heat_map, lines, picture
from runwright.report import write_report
from runwright.sweeps.leaderboard import compare, find_runs
from runwright.sweeps.table import problems, show, write_summary
from runwright.training.weights import start_from

EVIL = "\x1b[2J\x1b]0;title\x07\r\x9b31m\x00\x7f\u202e\ufffe"
SIGNS = set(EVIL) - set("[2J]0;title31m")


def is_clean(text: str) -> bool:
    return not SIGNS & set(text)


def test_what_is_printable_stays():
    text = "λ = 0.1\n\tépoque 3: 模型 😀"
    assert printable(text) == text
    assert is_clean(printable(EVIL))
    printable("\udc80").encode()  # of a file's name that is no UTF-8


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Every text of its runs is evil."""
    folder = tmp_path / f"sweep{EVIL[:4]}"
    kinds = {"name": f"a{EVIL}", "monitor": f"loss{EVIL}", "stopped": f"pruned: {EVIL}"}
    for i in range(2):
        scores = {f"loss{EVIL}": 0.5 + i, f"x{EVIL}": 1.0}
        settings = {f"key{EVIL}": f"v{i}{EVIL}", f"other{EVIL}": i, "seed": 0}
        run = make_run(folder / f"{i}{EVIL[:5]}", **kinds, fit=scores, test=scores, settings=settings)
        (run / "metrics.csv").write_text(
            f'step,epoch,"train_loss{EVIL}","loss{EVIL}"\n9,0,1.0,1.0\n19,1,0.5,0.5\n', newline=""
        )
        (run / "test_results.json").write_text(json.dumps(results()))
    (folder / "failed").mkdir()
    (folder / "failed" / "error.txt").write_text(f"no memory{EVIL}\n\ntraceback{EVIL}", newline="")
    return folder


def results() -> dict[str, object]:
    mistake = {
        "index": 0,
        "target": 0,
        "predicted": 1,
        "probability": 0.9,
        "sample_shape": [2, 2],
        "sample": [0, 1, 2, 3],
    }
    return {"class_names": [f"a{EVIL}", f"b{EVIL}"], "confusion": [[3, 1], [0, 4]], "mistakes": [mistake]}


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_table_and_its_problems_are_clean(sweep, is_terminal, monkeypatch, capsys):
    if is_terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "80")
    rows = compare(find_runs([sweep]))
    show(rows)
    out = capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "")  # bold, our own
    assert is_clean(out)
    assert all(map(is_clean, problems(rows)))
    assert len(list(problems(rows))) == 1
    write_summary(sweep, rows)
    assert is_clean((sweep / "summary.csv").read_text().replace("\r", ""))
    assert is_clean((sweep / "summary.json").read_text())


def test_a_table_has_one_line_for_each_row(tmp_path, capsys):
    for i in range(2):
        make_run(tmp_path / str(i), settings={"key": f"{i}\n{i}"}, name="a\nb")
    show(compare(find_runs([tmp_path])))
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_reports_are_drawn_and_clean(sweep):
    for folder in (sweep, *find_runs([sweep])):
        assert is_clean(write_report(folder).read_text().split("<script>")[0])
    assert (sweep / "sweep.png").is_file()


@pytest.mark.parametrize("sign", [*'\x00\x1b\n\x7f\ufffe\ud800\\"', "".join(map(chr, range(32)))])
def test_no_sign_in_a_name_ends_the_process_that_draws(sign):
    text = f"a{sign}b"
    points = [(0.0, 1.0), (1.0, 2.0)]
    point = {"value": text, "row": text, "mean": 1.0, "std": 0.0, "low": 1.0, "high": 1.0}
    charts = [
        lines({text: points, "b": points}, text, text, text, best=1.0),
        confusion([[1, 1], [0, 1]], [text, "b"], text),
        effect(text, [point], text, text, {text: 1.0}),
        heat_map((text, "b"), [{"x": text, "y": "z", "mean": 1.0}], text, text),
        crowd([(text, text, points)], text, text, text),
    ]
    assert picture([(text, chart) for chart in charts], text).startswith(b"\x89PNG")
    assert all(is_clean(json.dumps(for_page(chart), ensure_ascii=False).replace("\n", "")) for chart in charts)


log = logging.getLogger("runwright.x")


def logged(speak, is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a logger of a run prints."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, no_color=True, width=500)
    monkeypatch.setattr("runwright.loggers.terminal.get_console", lambda: console)
    handler = Handler(stream)
    handler.setFormatter(Formatter("%(message)s"))
    logger = logging.getLogger("runwright")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        speak()
    finally:
        logger.removeHandler(handler)
    return stream.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_a_run_says_is_clean(is_terminal, monkeypatch, tmp_path):
    metrics = {
        "epochs": 1,
        "stopped": EVIL,
        "best_checkpoint": EVIL,
        "fit": {EVIL: 1.0},
        "test": {EVIL: 1.0},
        "steps": 3,
    }
    said = logged(lambda: print_summary(metrics, "1 s", 1, [EVIL]), is_terminal, monkeypatch)
    assert "1 epoch" in said
    assert is_clean(said)

    def fail() -> None:
        try:
            raise ValueError(EVIL)
        except ValueError:
            logging.getLogger("runwright.x").exception("failed: %s", EVIL)

    said = logged(fail, is_terminal, monkeypatch)
    assert "Traceback" in said
    assert is_clean(said)

    model = torch.nn.Linear(1, 1)
    state = {"model.weight": torch.zeros(1, 1), f"model.{EVIL}": torch.zeros(1)}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(archive({"state_dict": state}))
    said = logged(lambda: list(map(log.info, start_from(model, tmp_path))), is_terminal, monkeypatch)
    assert "not used" in said
    assert is_clean(said)


def test_both_logs_of_hydras_are_written_by_the_formatter():
    for folder in ("job_logging", "hydra_logging"):
        formatters = yaml.safe_load((CONF / "hydra" / folder / "runwright.yaml").read_text())["formatters"]
        assert {each["class"] for each in formatters.values()} == {"runwright.loggers.printable.Formatter"}


def test_a_complaint_and_a_traceback_are_clean(capsys):
    assert complain(EVIL) == 2
    with pytest.raises(SystemExit) as ended, complaining():
        raise RuntimeError(EVIL)
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert "RuntimeError: " in err
    assert is_clean(err)


def test_a_checkpoint_of_a_strange_name_is_printed_cleanly(cli, made, tmp_path):
    run = Path(shutil.copytree(made, tmp_path / "run"))
    (run / "checkpoints" / "last.ckpt").rename(run / "checkpoints" / f"best-{EVIL[:9]}.ckpt")
    (tmp_path / "x.csv").write_text("1,2,3,4\n")
    result = cli(run, "--input", "x.csv", "--output", "y.csv", script="predict")
    assert result.status == 0, result.err
    assert is_clean(result.out + result.err)
    assert "1 samples by" in result.out
