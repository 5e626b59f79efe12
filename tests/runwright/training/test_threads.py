"""The number of threads follows from the configuration, and is recorded."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Result
from omegaconf import OmegaConf
from torch import nn

from runwright.config.errors import InputError
from runwright.training import threads

SMALL, LARGE = nn.Linear(10, 10), nn.Linear(1000, 1000)


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_all_threads", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wanted", "model", "recorded", "number"),
    [
        ("auto", SMALL, None, 1),
        ("auto", LARGE, None, 4),
        ("auto", LARGE, 2, 2),  # a resumed run keeps its own
        ("auto", SMALL, 3, 3),
        (3, SMALL, None, 3),
        (1, LARGE, 2, 1),
    ],
)
def test_the_number_follows_from_the_work_of_a_step(
    wanted: str | int, model: nn.Module, recorded: int | None, number: int
) -> None:
    cfg = OmegaConf.create({"num_threads": wanted})
    threads.set_num_threads(cfg, model, 32, recorded)
    assert cfg.num_threads == torch.get_num_threads() == number


def test_a_large_batch_makes_work_for_several_threads() -> None:
    cfg = OmegaConf.create({"num_threads": "auto"})
    threads.set_num_threads(cfg, SMALL, 100_000)
    assert cfg.num_threads == 4


def test_the_environment_says_more_than_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    cfg = OmegaConf.create({"num_threads": "auto"})
    threads.set_num_threads(cfg, SMALL, 32)
    assert cfg.num_threads == 4


@pytest.mark.parametrize("wanted", [0, -1, 1.5, True, "all", None])
def test_what_is_no_number_of_threads_is_refused(wanted: object) -> None:
    with pytest.raises(InputError, match=r"num_threads=.*: must be auto, or a whole number of at least 1"):
        threads.set_num_threads(OmegaConf.create({"num_threads": wanted}), SMALL, 32)


def test_a_repeated_run_counts_its_own_work(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quick = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "test=false"]
    small = cli(*quick, "model.hidden=[8]", "hydra.run.dir=small").run_dir
    large = cli("from=small", "model.hidden=[1000,1000]", "data.batch_size=200", "hydra.run.dir=large").run_dir
    typed = cli(*quick, "num_threads=3", "hydra.run.dir=typed").run_dir
    again = cli("from=typed", "model.hidden=[8]", "hydra.run.dir=again").run_dir
    numbers = [
        yaml.safe_load((each / "config.yaml").read_text())["num_threads"] for each in (small, large, typed, again)
    ]
    assert numbers == [1, 4, 3, 3]
