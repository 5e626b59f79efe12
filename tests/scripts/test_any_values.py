"""Whatever values are typed: a run trains, or ends with a sentence about a key."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from conftest import SCRIPT, Result
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runwright.config.walk import as_typed, leaves_of

CHOICES = {
    "data": ["digits", "iris", "linear"],
    "model": ["mlp", "mnist_dropout"],
    "task": ["classification", "label_smoothing", "regression"],
    "optimizer": ["adadelta", "adagrad", "adam", "adamw", "nesterov", "rmsprop", "sgd_momentum"],
    "scheduler": ["constant", "cosine", "one_cycle", "plateau", "plateau_per_batch", "polynomial", "step_per_batch"],
    "callbacks": ["default", "[default,max_norm,ema]", "no_validation"],
    "logger": ["[tensorboard,csv]", "none"],
}
FAST = {"trainer.max_epochs": 1, "trainer.max_steps": 2, "trainer.limit_val_batches": 1}
# These start or wait for other processes, or name files and directories.
LEFT_OUT = ("trainer.devices", "trainer.num_nodes", "trainer.strategy", "data.root", "resume", "init_from", "test")

# Sizes are small, or such that no machine could have them.
NUMBERS = [0, 1, 2, 7, -1, 10**12, 10**30, 0.5, 0.999, 1.0, 1.5, -0.1, 1e-9, 1e-300, 1e18, 1e300, "nan", "-inf"]
WORDS = ["val_loss", "train_loss", "max", "relu", "step", "fit", "none", "auto", "x", "''", "${seed}", "${nothing}"]
VALUES = st.recursive(
    st.sampled_from([*NUMBERS, *NUMBERS, *WORDS, None, True, False]),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.sampled_from(["a", "pattern"]), value, max_size=2),
    max_leaves=3,
)


@cache
def keys_of(choices: tuple[str, ...]) -> list[str]:
    with initialize_config_dir(str(SCRIPT.parents[1] / "conf"), version_base="1.3"):
        cfg = compose("train", list(choices))
    keys = [key for section in cfg for key, _ in leaves_of(cfg, str(section))]
    return [key for key in keys if key not in LEFT_OUT and "_target_" not in key]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    groups = draw(st.lists(st.sampled_from(sorted(CHOICES)), max_size=3, unique=True))
    chosen = tuple(f"{group}={draw(st.sampled_from(CHOICES[group]))}" for group in groups)
    values = draw(st.dictionaries(st.sampled_from(keys_of(chosen)), VALUES, min_size=1, max_size=3))
    return [*chosen, *(f"{key}={as_text(value)}" for key, value in (FAST | values).items())]


def as_text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_text(each)}" for key, each in value.items()) + "}"
    return f"[{','.join(map(as_text, value))}]" if isinstance(value, list) else as_typed(value)


@pytest.mark.parametrize("num_runs", [12, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_a_run_trains_or_says_which_key_is_to_blame(cli: Callable[..., Result], num_runs: int) -> None:
    sections = {key.partition(".")[0] for key in keys_of(())}

    @settings(
        max_examples=num_runs, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(command_lines())
    def holds(args: list[str]) -> None:
        result = cli(*args)
        assert "Traceback" not in result.err, result.err
        if result.status == 0:
            assert (result.run_dir / "metrics.json").is_file()
        elif result.status == 1:  # it trained, until its numbers were none
            assert "NonFiniteError" in result.err + result.out
        else:
            assert result.status == 2
            assert 1 <= len(result.err.splitlines()) <= 3, result.err
            assert any(section in result.err.partition(":")[0] for section in sections), result.err
            assert result.run_dirs == []

    holds()
