"""A project's own task, loss and data, listed in its conf/: what is there for the parts here is there for them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import CONF, PACKAGE, SCRIPT, Result

FAST = ("trainer.max_epochs=2", "model.hidden=[8]", "data=points", "report=false")
CLASSIFICATION = yaml.safe_load((CONF / "task" / "classification.yaml").read_text())
LABEL_ACCURACY = {"_target_": "torchmetrics.classification.MultilabelAccuracy", "num_labels": 4}
TASKS = {
    "autoencoder": {"_target_": "own_parts.Autoencoder"},
    "labels": CLASSIFICATION
    | {"predicts": "labels", "loss": {"_target_": "torch.nn.BCEWithLogitsLoss"}, "metrics": {"acc": LABEL_ACCURACY}},
    "focal": CLASSIFICATION | {"loss": {"_target_": "own_parts.FocalLoss", "gamma": 1.5}},
    "unfinished": {"_target_": "own_parts.Unfinished"},
}


@pytest.fixture
def fork(cli: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """`cli` of a project whose conf/ has files for the parts of `own_parts`, and lists it as its own."""
    for folder in (CONF, SCRIPT.parent):
        shutil.copytree(folder, tmp_path / "fork" / folder.name)
    conf = tmp_path / "fork" / "conf"
    (conf / "trusted.yaml").write_text(yaml.safe_dump({"packages": [PACKAGE, "own_parts"], "functions": []}))
    points = {"_target_": "own_parts.Points", "targets": "classes", "batch_size": 16}
    (conf / "data" / "points.yaml").write_text(yaml.safe_dump(points))
    for name, content in TASKS.items():
        (conf / "task" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return lambda *args, **options: cli(*args, scripts=tmp_path / "fork" / "scripts", **options)


@pytest.mark.parametrize(
    ("task", "targets", "tested", "columns", "outputs"),
    [
        ("autoencoder", "points", {"test_loss"}, "y0,y1,y2,y3", "outputs of the model"),
        (
            *("labels", "labels", {"test_loss", "test_acc"}),
            *("label0,label1,label2,label3,p0,p1,p2,p3", "logits of the labels"),
        ),
        ("focal", "classes", {"test_loss", "test_acc"}, "class,p0,p1,p2,p3", "logits of the classes"),
    ],
)
def test_own_parts_are_trained_and_reopened(
    fork: Callable[..., Result], task: str, targets: str, tested: set[str], columns: str, outputs: str
) -> None:
    trained = fork(*FAST, f"task={task}", f"data.targets={targets}")
    run_dir, metrics = trained.run_dir, trained.metrics
    assert metrics["steps"] == 4  # of 32 samples in batches of 16, twice
    assert metrics["test"].keys() == tested
    assert metrics["best"] == metrics["fit"]["val_loss"]  # of two epochs the second: it learns
    evaluated = fork(run_dir, script="evaluate")
    assert (evaluated.status, evaluated.err) == (0, "")
    assert json.loads(evaluated.out) == pytest.approx(metrics["test"])
    np.save("x.npy", np.eye(4, dtype=np.float32))
    predicted = fork(run_dir, "--input", "x.npy", "--output", "y.csv", script="predict")
    assert (predicted.status, predicted.err) == (0, "")
    head, *rows = Path("y.csv").read_text().splitlines()
    assert (head, len(rows)) == (columns, 4)
    exported = fork(run_dir, "--format", "torchscript", script="export")
    assert (exported.status, exported.err) == (0, "")
    assert outputs in (run_dir / "export" / "model.md").read_text()
    reported = fork(run_dir, script="report")
    assert (reported.status, reported.err) == (0, "")
    assert "val_loss" in (run_dir / "report.html").read_text()
    again = fork(f"from={run_dir}")
    assert again.metrics["test"] == metrics["test"]
    longer = fork(f"resume={run_dir}", "trainer.max_epochs=3")
    assert longer.status == 0, longer.err
    assert json.loads((run_dir / "metrics.json").read_text())["steps"] == 6


def test_a_task_that_lacks_members_is_refused_by_their_names(fork: Callable[..., Result]) -> None:
    result = fork(*FAST, "task=unfinished")
    assert (result.status, result.run_dirs) == (2, [])
    (line,) = result.err.splitlines()
    missing = "check, epoch_state, load_epoch_state, metric_keys, mode_of, outputs_are, predictions"
    assert line.startswith(f"task: own_parts.Unfinished lacks {missing}; runwright.contracts.Task says")


def test_what_is_not_listed_is_not_reopened(fork: Callable[..., Result], cli: Callable[..., Result]) -> None:
    run_dir = fork(*FAST, "task=autoencoder", "data.targets=points").run_dir
    result = cli(run_dir, script="evaluate")  # of the project that does not list it
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert "own_parts.Points: not a class that a recorded run may be built of" in result.err
