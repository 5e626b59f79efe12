"""Which direction of the monitored metric is the better one."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CONF, Result
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from runwright.config.errors import InputError
from runwright.launch.application import make_plan
from runwright.launch.rendezvous import as_text
from runwright.training.build import construct


@pytest.fixture(autouse=True)
def _no_job() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["name=x", "logger=none", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])


def modes(cfg: DictConfig) -> dict[str, Any]:
    keys = ["mode", "scheduler.mode", "callbacks.early_stopping.mode", "callbacks.best_checkpoint.mode"]
    return {key: OmegaConf.select(cfg, key) for key in keys}


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ("data=iris data.val_size=20", "min"),
        ("data=iris data.val_size=20 monitor=val_acc", "max"),
        ("data=iris data.val_size=20 monitor=train_loss", "min"),
        ("data=linear task=regression data.val_size=5 monitor=val_mae", "min"),
        ("data=linear task=regression data.val_size=5 monitor=val_r2", "max"),
        ("data=iris data.val_size=20 monitor=val_acc mode=max", "max"),
    ],
)
def test_the_metric_says_what_is_better(arguments: str, mode: str) -> None:
    cfg = composed("scheduler=plateau", *arguments.split())
    _, task, trainer = construct(cfg, Path())
    assert set(modes(cfg).values()) == {mode}
    callbacks = [*trainer.checkpoint_callbacks, *trainer.early_stopping_callbacks]
    assert {each.mode for each in callbacks if hasattr(each, "mode")} == {mode}
    assert task.scheduler.options["mode"] == mode
    # several processes get the values resolved
    cfg = composed("scheduler=plateau", *arguments.split())
    sent = OmegaConf.create(json.loads(as_text(cfg))["cfg"])
    OmegaConf.set_struct(sent, True)
    construct(sent, Path())
    assert set(modes(sent).values()) == {mode}


def test_each_monitor_has_its_own_mode() -> None:
    cfg = composed("monitor=val_acc", "callbacks.early_stopping.monitor=val_loss", "scheduler=plateau_per_batch")
    construct(cfg, Path())
    assert modes(cfg) == {
        "mode": "max",
        "scheduler.mode": "min",
        "callbacks.early_stopping.mode": "min",
        "callbacks.best_checkpoint.mode": "max",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("monitor=val_acc mode=min", "mode=min: higher val_acc is better; set mode=max, or leave it out"),
        ("mode=max", "mode=max: lower val_loss is better; set mode=min, or leave it out"),
        ("mode=down", "mode=down: must be min or max"),
        (
            "callbacks.early_stopping.monitor=val_acc callbacks.early_stopping.mode=min",
            "callbacks.early_stopping.mode=min: higher val_acc is better; set callbacks.early_stopping.mode=max",
        ),
        ("scheduler=plateau scheduler.mode=max", "scheduler.mode=max: lower val_loss is better"),
        (
            "monitor=val_cm +task.metrics.cm._target_=torchmetrics.classification.MulticlassConfusionMatrix "
            "+task.metrics.cm.num_classes=10",
            "monitor=val_cm: it is unknown whether lower or higher is better; set mode=min or mode=max",
        ),
    ],
)
def test_a_mode_against_its_metric_is_refused(arguments: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        construct(composed(*arguments.split()), Path())
    assert message in str(error.value)


def test_a_run_by_accuracy_keeps_its_best_epoch(cli: Callable[..., Result]) -> None:
    made = cli("monitor=val_acc", "trainer.max_epochs=3", "logger=csv", "data.batch_size=512")
    assert made.metrics["mode"] == "max"
    table = [line.split(",") for line in (made.run_dir / "metrics.csv").read_text().splitlines()]
    curve = [float(row[table[0].index("val_acc")]) for row in table[1:] if row[table[0].index("val_acc")]]
    assert made.metrics["best"] == pytest.approx(max(curve))
    assert max(curve) > min(curve)


def test_a_search_by_accuracy_maximizes_it(cli: Callable[..., Result], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = ["-m", "hydra/sweeper=optuna", "hydra.sweeper.num_trials=2", "hydra.sweeper.pruner=null"]
    made = cli(*search, "monitor=val_acc", "trainer.max_epochs=1", "logger=none", "optimizer.lr=1e-6,0.1")
    assert made.status == 0, made.err
    (summary,) = tmp_path.rglob("summary.json")
    rows = json.loads(summary.read_text())
    scores = [row["mean"]["val_acc"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert f"val_acc {max(scores):.4g}" in made.out
    assert {row["mode"] for row in rows} == {"max"}


def test_a_search_goes_by_one_metric() -> None:
    with pytest.raises(InputError, match=r"^monitor=val_acc,val_loss: a search optimizes only one metric"):
        make_plan(["-m", "hydra/sweeper=optuna", "monitor=val_loss,val_acc"], CONF)
    grid = make_plan(["-m", "monitor=val_loss,val_acc"], CONF)
    assert not any("sweeper.mode" in each for each in grid.arguments)
    search = make_plan(["-m", "hydra/sweeper=optuna", "monitor=val_acc", "seed=1,2"], CONF)
    assert "hydra.sweeper.mode=max" in search.arguments


def test_the_first_draws_of_a_search_spread() -> None:
    optuna = pytest.importorskip("optuna")
    from runwright.sweeps.search import _mixed

    for seed in range(5):
        draws = []
        for number in range(10):
            study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=_mixed(seed, number)))
            draws.append(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}).params["x"])
        assert max(draws) - min(draws) > 0.5
        assert len({int(5 * x) for x in draws}) >= 3
    assert len({_mixed(0, 1), _mixed(1, 0), _mixed(1, 1), _mixed(0, 0)}) == 4
