"""Every choice of every config group is built, and trains: the files are found on disk, so a new one is tested.

By default one choice of each group trains; the others are slow."""

import re
import shlex
import sys
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONF, Result, as_if_in_a_fresh_process, composed
from omegaconf import DictConfig, OmegaConf

from runwright.config.errors import InputError
from runwright.launch.application import make_plan
from runwright.training.build import construct, make

GROUPS = {
    folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
    for folder in sorted(CONF.iterdir())
    if folder.is_dir() and folder.name not in ("hydra", "local")
}
EPOCHS, BATCHES = 2, 3
FAST = [f"trainer.max_epochs={EPOCHS}", f"trainer.limit_train_batches={BATCHES}", "trainer.log_every_n_steps=1"]
NAMED = ("experiment", "sweep", "debug")  # whole runs rather than parts of one, tested each in its own way


pytestmark = pytest.mark.usefixtures("mnist_files")


PARTS = [group for group in GROUPS if group not in NAMED]


def one_and_all(*groups: str) -> list[Any]:
    """The choices of these groups, of each of which the first alone is tried by default."""
    return [
        pytest.param(group, choice, marks=[] if choice == GROUPS[group][0] else [pytest.mark.slow])
        for group in groups
        for choice in GROUPS[group]
    ]


@pytest.mark.parametrize(("group", "choice"), [(group, choice) for group in PARTS for choice in GROUPS[group]])
def test_a_choice_is_built(group: str, choice: str, tmp_path: Path) -> None:
    _take_extras(group, choice)
    cfg = composed(f"{group}={choice}", *_what_suits(group, choice), *FAST)
    with as_if_in_a_fresh_process(sys.argv):  # a trainer makes settings of torch's for its whole process
        if cfg.trainer.accelerator == "gpu" and not torch.cuda.is_available():
            with pytest.raises(InputError, match="No supported gpu backend found"):
                construct(cfg, tmp_path / "run")
            return
        data, task, trainer = construct(cfg, tmp_path / "run")
    assert (list(data.sample_shape), data.num_outputs) == (cfg.model.sample_shape, cfg.model.num_outputs)
    assert task.model(task.example_input_array).shape == (1, data.num_outputs)
    assert {type(each).__name__ for each in trainer.loggers} == {_class_name(each) for each in _parts(cfg, "logger")}
    callbacks = {type(each).__name__ for each in trainer.callbacks}
    wanted = {_class_name(each) for each in _parts(cfg, "callbacks")}
    assert wanted - callbacks <= (set() if trainer.loggers else {"LearningRateMonitor"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("group", "choice"), one_and_all(*PARTS))
def test_a_choice_trains(cli: Callable[..., Result], group: str, choice: str) -> None:
    _take_extras(group, choice)
    needs_gpu = composed(f"{group}={choice}").trainer.accelerator == "gpu"
    result = cli(f"{group}={choice}", *_what_suits(group, choice), *FAST)
    if needs_gpu and not torch.cuda.is_available():
        assert result.status == 2
        assert "No supported gpu backend found" in result.err
        return
    assert result.metrics["steps"] == EPOCHS * BATCHES
    assert isfinite(result.metrics["fit"]["train_loss"])
    assert isfinite(result.metrics["test"]["test_loss"])


def _take_extras(group: str, choice: str) -> None:
    for extra in re.findall("uv sync --extra ([a-z]+)", (CONF / group / f"{choice}.yaml").read_text()):
        pytest.importorskip(extra)


def _parts(cfg: DictConfig, section: str) -> list[DictConfig]:
    return [*(cfg.get(section) or {}).values()]


def _class_name(part: DictConfig) -> str:
    return part._target_.rpartition(".")[2]


def _what_suits(group: str, choice: str) -> list[str]:
    """Further choices without which this one makes no sense."""
    text = (CONF / group / f"{choice}.yaml").read_text()
    if group == "data":
        data = make(composed(f"data={choice}"), "data")
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
def test_an_experiment_is_built(name: str, tmp_path: Path) -> None:
    args = [arg for arg in _command("experiment", name) if not arg.startswith("sweep=")]
    with as_if_in_a_fresh_process(sys.argv):
        cfg = composed(*args)
        data, task, _ = construct(cfg, tmp_path)
    assert task.model(task.example_input_array).shape == (1, data.num_outputs)
    assert cfg.name == name


@pytest.mark.parametrize(("group", "name"), one_and_all("experiment"))
def test_an_experiment_runs(cli: Callable[..., Result], group: str, name: str) -> None:
    args = [arg for arg in _command(group, name) if not arg.startswith("sweep=")]  # one run is enough
    result = cli(*args, *FAST)
    assert result.metrics["steps"] == EPOCHS * BATCHES
    assert result.metrics["name"] == name
    assert result.run_dir.parent.name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GROUPS["experiment"] if name.startswith("mnist")])
def test_an_experiment_on_mnist_runs_on_digits(cli: Callable[..., Result], name: str) -> None:
    assert cli(f"experiment={name}", "data=digits", *FAST).metrics["steps"] == EPOCHS * BATCHES


def test_an_experiment_on_mnist_runs_on_fashion_mnist(cli: Callable[..., Result]) -> None:
    cfg = OmegaConf.load(cli("experiment=mnist_sgd", "data=fashion_mnist", *FAST).run_dir / "config.yaml")
    assert cfg.data._target_.endswith("FashionMNIST")


@pytest.mark.parametrize("name", GROUPS["sweep"])
def test_the_jobs_of_a_sweep_are_built(name: str) -> None:
    arguments = _command("sweep", name)
    with as_if_in_a_fresh_process(["train.py", *arguments]):
        plan = make_plan(arguments, CONF)  # which builds jobs that between them hold each value
    assert plan.is_sweep
    assert f"sweep={name}" in plan.arguments


@pytest.mark.parametrize(("group", "name"), one_and_all("sweep"))
def test_a_sweep_runs_by_the_command_in_its_header(cli: Callable[..., Result], group: str, name: str) -> None:
    result = cli(*_command(group, name), "trainer.max_epochs=1", "trainer.limit_train_batches=2")
    assert result.status == 0, result.err
    assert len(result.run_dirs) > 1
    assert all((run_dir / "metrics.json").is_file() for run_dir in result.run_dirs)


@pytest.mark.parametrize(("group", "choice"), one_and_all("debug"))
def test_a_debug_choice_runs(cli: Callable[..., Result], group: str, choice: str) -> None:
    assert cli(f"{group}={choice}", "trainer.max_epochs=1", "trainer.limit_train_batches=2").metrics["steps"] >= 1


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
