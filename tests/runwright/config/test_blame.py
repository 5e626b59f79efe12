"""Why a class could not be loaded: the name, or the line of its module that fails."""

from pathlib import Path

import pytest
from conftest import CONF, PACKAGE, composed
from omegaconf import OmegaConf

from runwright.config.errors import InputError, nearest
from runwright.training.build import construct

MODULE, _, MODEL = OmegaConf.load(CONF / "model" / "mlp.yaml")._target_.rpartition(".")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (f"model._target_={MODULE}.{MODEL}P", f"there is no {MODEL}P in {MODULE}; did you mean {MODEL}?"),
        (f"model._target_={PACKAGE}.modells.Net", f"there is no modells in {PACKAGE}; did you mean models?"),
        ("optimizer._target_=torch.optim.SDG", "there is no SDG in torch.optim; did you mean SGD?"),
        (
            "task.loss._target_=torch.nn.CrossEntropy",
            "there is no CrossEntropy in torch.nn; did you mean Cross",
        ),
        ("scheduler.factory._target_=nowhere.Step", "there is no module nowhere; is its package installed?"),
        ("callbacks.speed._target_=runwright.loop.speed.Sped", "there is no Sped in runwright.loop.speed"),
    ],
)
def test_a_wrong_class_path_is_told_by_its_wrong_part(override: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        construct(composed("data=iris", override), Path())
    assert str(error.value).startswith(f"{override}: {reason}")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("import torch\nimport nowhere_at_all\n", 2, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("\n\nfrom torch import NoSuchName\n", 3, "ImportError: cannot import name 'NoSuchName' from 'torch'"),
        ("x = 1\ny = x.z\n", 2, "AttributeError: 'int' object has no attribute 'z'"),
        ("print(undefined)\n", 1, "NameError: name 'undefined' is not defined"),
        ("class Net(\n", 1, "'(' was never closed"),
    ],
)
def test_a_module_that_fails_is_told_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, reason: str
) -> None:
    name = f"own_module_{line}_{len(text)}"
    file = tmp_path / f"{name}.py"
    file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as error:
        construct(composed("data=iris", f"model._target_={name}.Net"), Path())
    assert str(error.value).startswith(f"model._target_={name}.Net: {file}, line {line}: {reason}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "+callbacks.patience=3",
            "callbacks.patience=3: names no class (_target_); did you mean callb",
        ),
        (
            "+callbacks.early_stop.patience=3",
            "callbacks.early_stop: names no class (_target_); did you mean early",
        ),
        ("~model._target_", "model: names no class (_target_)"),
        ("+logger.csv=true", "logger.csv=true: names no class (_target_)"),
        (
            "+logger.tensorboard.foo=1",
            "logger.tensorboard.foo=1: foo: neither TensorBoardLogger nor Summ",
        ),
        (
            "++callbacks.early_stopping=null",
            "callbacks.early_stopping=null: names no class (_target_); ~",
        ),
    ],
)
def test_a_part_that_nothing_is_built_of_is_refused(override: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        construct(composed("data=iris", override), Path())
    assert str(error.value).startswith(message)


def test_options_that_only_training_would_refuse_are_refused_before() -> None:
    with pytest.raises(InputError, match=r"^callbacks\.ema\.foo=1: foo: neither EMAWeightAveraging nor AveragedModel"):
        construct(composed("callbacks=[default,ema]", "+callbacks.ema.foo=1"), Path())
    construct(composed("callbacks=[default,ema]", "+callbacks.ema.use_buffers=true"), Path())
    construct(composed("+logger.tensorboard.max_queue=5"), Path())


def test_a_word_is_proposed_once() -> None:
    assert nearest("modelz", ["models", "models"]) == "; did you mean models?"
