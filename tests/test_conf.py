"""Every choice of every config group trains: the files are found on disk, so a new one is tested by being there."""

import re
import shlex
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import pytest
import torch
from conftest import Result
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).parents[1] / "conf"
GROUPS = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
    for folder in sorted(CONF.iterdir())
    if folder.is_dir() and folder.name not in ("hydra", "local")
}
EPOCHS, BATCHES = 2, 3
FAST = [f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={BATCHES}", "trainer.log_every_n_steps=1"]
NAMED = ("experiment", "sweep", "debug")  # whole runs rather than parts of one, tested each in its own way


pytestmark = pytest.mark.usefixtures("mnist_files")


@pytest.mark.parametrize(
    ("group", "choice"), [(group, choice) for group in GROUPS if group not in NAMED for choice in GROUPS[group]]
)
def test_a_choice_trains(cli: Callable[..., Result], group: str, choice: str) -> None:
    for extra in re.findall("uv sync --extra ([a-z]+)", (CONF / group / f"{choice}.yaml").read_text()):
        pytest.importorskip(extra)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        needs_gpu = compose("train", [f"{group}={choice}"]).trainer.accelerator == "gpu"
    result = cli(f"{group}={choice}", *_what_suits(group, choice), *FAST)
    if needs_gpu and not torch.cuda.is_available():
        assert result.status == 2
        assert "No supported gpu backend found" in result.err
        return
    assert result.metrics["steps"] == EPOCHS * BATCHES
    assert isfinite(result.metrics["fit"]["train_loss"])
    assert isfinite(result.metrics["test"]["test_loss"])


def _what_suits(group: str, choice: str) -> list[str]:
    """Further choices without which this one makes no sense."""
    text = (CONF / group / f"{choice}.yaml").read_text()
    if group == "data":
        with initialize_config_dir(str(CONF), version_base="1.3"):
            data = instantiate(compose("train", [f"data={choice}"]).data)
        data.setup()
        task = ["task=regression"] if data.train.y.is_floating_point() else []
        return task if data.val_dataloader() else [*task, "callbacks=no_validation", "monitor=train_loss"]
    if group == "task" and "torchmetrics.regression" in text:
        return ["data=linear", *_what_suits("data", "linear")[1:]]
    if group == "trainer" and "ddp" in text:
        return ["trainer.devices=1", "trainer.accelerator=cpu"]  # two processes: test_processes.py
    return []


@pytest.mark.parametrize("added", ["max_norm", "ema"])
def test_a_callback_is_added_to_the_default(cli: Callable[..., Result], added: str) -> None:
    assert cli(f"callbacks=[default,{added}]", *FAST).metrics["best_checkpoint"]


def test_model_summary_is_shown(cli: Callable[..., Result]) -> None:
    assert "Params" in cli("callbacks=[default,model_summary]", *FAST).out


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_an_experiment_runs(cli: Callable[..., Result], name: str) -> None:
    args = [arg for arg in _command("experiment", name) if not arg.startswith("sweep=")]  # one run is enough
    result = cli(*args, *FAST)
    assert result.metrics["steps"] == EPOCHS * BATCHES
    assert result.metrics["name"] == name
    assert result.run_dir.parent.name == name


@pytest.mark.parametrize("name", [name for name in GROUPS["experiment"] if name.startswith("mnist")])
def test_an_experiment_on_mnist_runs_on_digits(cli: Callable[..., Result], name: str) -> None:
    assert cli(f"experiment={name}", "data=digits", *FAST).metrics["steps"] == EPOCHS * BATCHES


def test_an_experiment_on_mnist_runs_on_fashion_mnist(cli: Callable[..., Result]) -> None:
    cfg = OmegaConf.load(cli("experiment=mnist_sgd", "data=fashion_mnist", *FAST).run_dir / "config.yaml")
    assert cfg.data._target_.endswith("FashionMNIST")


@pytest.mark.parametrize("name", GROUPS["sweep"])
def test_a_sweep_runs_by_the_command_in_its_header(cli: Callable[..., Result], name: str) -> None:
    result = cli(*_command("sweep", name), "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    assert result.status == 0, result.err
    assert len(result.run_dirs) > 1
    assert all((run_dir / "metrics.json").is_file() for run_dir in result.run_dirs)


@pytest.mark.parametrize("choice", GROUPS["debug"])
def test_a_debug_choice_runs(cli: Callable[..., Result], choice: str) -> None:
    assert cli(f"debug={choice}", "trainer.max_epochs=1", "trainer.limit_train_batches=2").metrics["steps"] >= 1


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in ("experiment", "sweep") for name in GROUPS[group]]
)
def test_a_named_run_is_named_like_its_file(group: str, name: str) -> None:
    cfg = OmegaConf.load(CONF / group / f"{name}.yaml")
    assert cfg.get("name", name if group == "sweep" else None) == name  # a sweep may go by what it is combined with


def _command(group: str, name: str) -> list[str]:
    """Arguments of the command that the file's header gives."""
    start = "# python scripts/train.py "
    (command,) = [line for line in (CONF / group / f"{name}.yaml").read_text().splitlines() if line.startswith(start)]
    args = shlex.split(command.removeprefix(start))
    assert f"{group}={name}" in args
    return args
