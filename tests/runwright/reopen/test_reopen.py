"""evaluate.py, predict.py, export.py and init_from: what they make of a run directory, its own machine far away."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Result, archive, class_of, run_dirs
from PIL import Image

FAST = ("trainer.max_epochs=2", "trainer.limit_train_batches=5")
FALLING = (
    "+task.metrics.mean._target_=torchmetrics.aggregation.MeanMetric",
    "monitor=val_mean",
    "mode=max",
)  # the loss
NAMED = (*FAST, "callbacks.best_checkpoint.filename=top", *FALLING)  # the first epoch's is the best
IRIS = ("data=iris", "data.normalize=fit", "callbacks=no_validation", "monitor=train_loss", *FAST)
LINEAR = ("data=linear", "task=regression", "callbacks=no_validation", "monitor=train_loss", *FAST)


@pytest.fixture
def moved(cli: Callable[..., Result], tmp_path: Path) -> Callable[..., Path]:
    """Makes a run, and moves it to where nobody expects it."""

    def move(*args: str) -> Path:
        target = tmp_path / "elsewhere" / "moved run"
        target.parent.mkdir(exist_ok=True)
        shutil.move(cli(*args).run_dir, target)
        return target

    return move


def numbers(path: Path) -> np.ndarray:
    with path.open() as file:
        return np.array([[float(value) for value in row] for row in list(csv.reader(file))[1:]])


@pytest.mark.parametrize("args", [FAST, NAMED, IRIS, LINEAR], ids=["digits", "own name", "iris", "linear"])
def test_evaluate_gives_the_figures_of_metrics_json(cli, moved, args):
    run_dir = moved(*args)
    before = sorted(run_dir.rglob("*"))
    result = cli(run_dir, script="evaluate")
    assert result.status == 0, result.err
    assert json.loads(result.out) == json.loads((run_dir / "metrics.json").read_text())["test"]
    assert sorted(run_dir.rglob("*")) == before
    assert result.err == ""


def test_evaluate_finds_the_data_where_it_is_told_to_and_fetches_nothing_unasked(cli, moved, mnist_files, tmp_path):
    run_dir = moved("data=mnist", *FAST)
    there = shutil.move(mnist_files, tmp_path / "there")
    try:
        result = cli(run_dir, script="evaluate")
        assert (result.status, len(result.err.splitlines())) == (2, 1)
        assert "data.root" in result.err
        assert not mnist_files.exists()
        found = json.loads(cli(run_dir, f"data.root={there}", script="evaluate").out)
        assert found == json.loads((run_dir / "metrics.json").read_text())["test"]
    finally:
        shutil.move(there, mnist_files)


def test_predict_normalises_as_training_did_and_needs_no_training_data(cli, moved, tmp_path, monkeypatch):
    from sklearn.datasets import load_iris

    run_dir = moved(*IRIS)
    iris = class_of("data", "iris")
    x, y = load_iris(return_X_y=True)
    np.savetxt("flowers.csv", x, delimiter=",", header=",".join(iris.feature_names), comments="")
    shuffled = [2, 0, 3, 1]
    names = ",".join(iris.feature_names[i] for i in shuffled)
    np.savetxt("shuffled.csv", x[:, shuffled], delimiter=",", header=names, comments="")
    np.save("flowers.npy", x)
    np.savez("flowers.npz", x=x.astype(np.float32))
    monkeypatch.setattr(iris, "load_all", lambda self: pytest.fail("read its data"))
    for kind in ("csv", "npy", "npz"):
        result = cli(run_dir, "--input", f"flowers.{kind}", "--output", f"{kind}.csv", script="predict")
        assert result.status == 0, result.err
    assert Path("csv.csv").read_text() == Path("npy.csv").read_text() == Path("npz.csv").read_text()
    assert cli(run_dir, "--input", "shuffled.csv", "--output", "shuffled out.csv", script="predict").status == 0
    assert Path("shuffled out.csv").read_text() == Path("csv.csv").read_text()
    assert cli(run_dir, "--input", "csv.csv", "--output", "again.csv", script="predict").err == (
        "csv.csv: line 1: unknown columns: 'class', 'p0', 'p1', 'p2'; missing: 'sepal length (cm)', "
        "'sepal width (cm)', 'petal length (cm)', 'petal width (cm)'\n"
    )
    assert not Path("again.csv").exists()
    predicted = numbers(Path("csv.csv"))
    assert predicted.shape == (150, 4)
    np.testing.assert_allclose(predicted[:, 1:].sum(1), 1, rtol=1e-4)
    assert (predicted[:, 0] == predicted[:, 1:].argmax(1)).all()
    assert (predicted[:, 0] == y).mean() > 0.5

    cli(run_dir, "--input", "flowers.npy", "--output", "out.npz", script="predict")
    arrays = np.load("out.npz")
    np.testing.assert_allclose(arrays["probabilities"], predicted[:, 1:], rtol=1e-4)
    assert (arrays["class"] == predicted[:, 0]).all()


def test_predict_gives_the_estimates_of_a_regression(cli, moved):
    run_dir = moved(*LINEAR)
    np.save("x.npy", np.random.default_rng(0).normal(size=(5, 200)))
    assert cli(run_dir, "--input", "x.npy", "--output", "y.csv", script="predict").status == 0
    weights = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert numbers(Path("y.csv")).shape == (5, 1)
    assert "model.output.weight" in weights


def test_predict_reads_images(cli, moved):
    from sklearn.datasets import load_digits

    run_dir = moved("trainer.max_epochs=3")
    images = load_digits().images[:3]
    for i, image in enumerate(images):
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(f"{i}.png")
    np.save("x.npy", images)
    cli(run_dir, "--input", "x.npy", "--output", "array.csv", script="predict")
    result = cli(run_dir, "--input", "0.png", "1.png", "2.png", "--output", "image.csv", script="predict")
    assert result.status == 0, result.err
    np.testing.assert_allclose(numbers(Path("array.csv")), numbers(Path("image.csv")), atol=0.02)


@pytest.mark.parametrize(("kind", "suffix"), [("torchscript", ".pt"), ("onnx", ".onnx"), ("torch.export", ".pt2")])
def test_export_gives_the_outputs_of_the_run(cli, moved, kind, suffix):
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    run_dir = moved(*IRIS)
    result = cli(run_dir, "--format", kind, script="export")
    assert result.status == 0, result.err
    file = run_dir / "export" / f"model{suffix}"
    x = np.array([[5.1, 3.5, 1.4, 0.2], [6.2, 3.4, 5.4, 2.3], [0, 0, 0, 0]], np.float32)
    if kind == "onnx":
        import onnxruntime

        outputs = onnxruntime.InferenceSession(file).run(None, {"x": x})[0]
    else:
        load = torch.jit.load if kind == "torchscript" else lambda path: torch.export.load(path).module()
        outputs = load(file)(torch.from_numpy(x)).detach().numpy()
    np.save("x.npy", x)
    cli(run_dir, "--input", "x.npy", "--output", "y.csv", script="predict")
    np.testing.assert_allclose(
        torch.from_numpy(outputs).softmax(1).numpy(), numbers(Path("y.csv"))[:, 1:], rtol=1e-3, atol=1e-6
    )
    card = (run_dir / "export" / "model.md").read_text()
    for expected in ("# iris", "(batch, 4)", "Fisher", "| test_acc |", "hidden:", '"torch":'):
        assert expected in card


def test_an_export_whose_outputs_differ_is_not_kept(cli, moved, monkeypatch):
    from runwright.reopen import export

    run_dir = moved(*IRIS)
    monkeypatch.setitem(export.FORMATS, "torchscript", lambda network, x, path: lambda batch: network(batch) + 0.1)
    result = cli(run_dir, "--format", "torchscript", script="export")
    assert result.status == 2
    assert "differ" in result.err
    assert not (run_dir / "export").exists()


def spoiled(run_dir, tmp_path, **values):
    """A copy of the run with these values in the first place of some of its tensors."""
    copy = Path(shutil.copytree(run_dir, tmp_path / "spoiled"))
    checkpoint = torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in values.items():
        tensor = checkpoint["Iris"][name] if name in checkpoint["Iris"] else checkpoint["state_dict"][f"model.{name}"]
        tensor.view(-1)[0] = value
    (copy / "checkpoints" / "last.ckpt").write_bytes(archive(checkpoint))
    return copy


NAN, INF = float("nan"), float("inf")
COMMANDS = {
    "predict": ["--input", "x.csv", "--output", "y.csv"],
    "evaluate": [],
    "export": ["--format", "torchscript", "--output", "model.pt"],
}
NOT_FINITE = {  # what is spoiled -> what each command says
    "a weight that is NaN": ({"output.weight": NAN}, dict.fromkeys(COMMANDS, "output.weight holds NaN or infinity")),
    "an infinite bias": ({"hidden_0.bias": INF}, dict.fromkeys(COMMANDS, "hidden_0.bias holds NaN or infinity")),
    "a normalisation that is NaN": (
        {"shift": NAN},
        {"predict": "output for sample 0 ", "evaluate": "test_loss is nan", "export": "outputs for random samples"},
    ),
    "an output that overflows": (  # of large samples alone, as the second is
        {"hidden_0.weight": 1e5},
        {"predict": "output for sample 1 "},
    ),
}


@pytest.mark.parametrize(
    ("name", "script"), [(name, script) for name, (_, said) in NOT_FINITE.items() for script in said]
)
def test_what_is_not_finite_is_no_answer(cli, made, tmp_path, name, script):
    values, said = NOT_FINITE[name]
    run_dir = spoiled(made, tmp_path, **values)
    if name == "an output that overflows":
        Path("x.csv").write_text("0,0,0,0\n1e38,1e38,1e38,1e38\n")
    else:
        Path("x.csv").write_text("5.1,3.5,1.4,0.2\n6.2,3.4,5.4,2.3\n")
    before = sorted(tmp_path.rglob("*"))
    result = cli(run_dir, *COMMANDS[script], script=script)
    assert (result.status, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert result.err.startswith(f"{run_dir / 'checkpoints' / 'last.ckpt'}: ")
    assert said[script] in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_whose_outputs_are_nan_now_and_then_is_not_kept(cli, made, tmp_path, monkeypatch):
    from runwright.reopen import export

    def spoil(network, x, path):
        return lambda batch: network(batch).masked_fill(torch.tensor(len(batch) == 1), NAN)

    monkeypatch.setitem(export.FORMATS, "torchscript", spoil)
    result = cli(made, *COMMANDS["export"], script="export")
    assert result.status == 2
    assert "differ from the run's by nan" in result.err
    assert not Path("model.pt").exists()


def test_init_from_starts_from_the_weights_that_fit_and_lists_the_others(cli, moved):
    run_dir = moved(*IRIS)
    old = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    still = ("optimizer.lr=0.0", f"init_from={run_dir}")
    same = cli(*IRIS, *still)
    new = torch.load(same.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert "6 of 6 tensors" in same.out
    other = cli(*IRIS, *still, "model.hidden=[200,7]")
    new = torch.load(other.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(old["model.hidden_0.weight"], new["model.hidden_0.weight"])
    assert re.search(r"newly initialised: .*hidden_1.weight \(7, 200\)", other.out)
    assert re.search(r"not used: .*hidden_1.weight \(200, 200\)", other.out)


def test_init_from_refuses_what_fits_nowhere(cli, moved, tmp_path):
    run_dir = moved(*IRIS)
    before = run_dirs(tmp_path)
    result = cli(f"init_from={run_dir}", "model.hidden=[]", *FAST)
    assert (result.status, len(result.err.splitlines())) == (2, 1)
    assert "init_from=" in result.err
    assert run_dirs(tmp_path) == before
