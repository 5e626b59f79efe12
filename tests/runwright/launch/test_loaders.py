"""Data of a user's own whose loaders are unusual, and a machine that is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from omegaconf import OmegaConf

from runwright.config.errors import InputError, sentence
from runwright.launch.job import num_processes
from runwright.launch.supervise import _threads

DATA = """
import torch
from lightning import LightningDataModule
from runwright.contracts import Data
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Stream(IterableDataset):
    def __iter__(self):
        for _ in range(3):
            yield torch.rand(4), torch.tensor(1)


class Own(LightningDataModule, Data):
    sample_shape, num_outputs, batch_size = [4], 3, 2

    def __init__(self, val="none", seed=0):
        super().__init__()
        self.val = val

    def _loader(self):
        return DataLoader(TensorDataset(torch.rand(6, 4), torch.arange(6) % 3), batch_size=2)

    def train_dataloader(self):
        return self._loader()

    def val_dataloader(self):
        stream = DataLoader(Stream(), batch_size=2)
        return {"none": None, "empty": [], "stream": stream, "set": self._loader()}[self.val]

    def test_dataloader(self):
        return self._loader()


class NoVal(LightningDataModule, Data):
    sample_shape, num_outputs, batch_size = [4], 3, 2
    train_dataloader = Own.train_dataloader
    _loader = Own._loader

    def __init__(self, val="", seed=0):
        super().__init__()
"""
BY_TRAINING = ["callbacks=no_validation", "monitor=train_loss"]


@pytest.fixture
def own(cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    (tmp_path / "loaders_of_own.py").write_text(DATA)
    (tmp_path / "conf" / "data").mkdir(parents=True)
    for name in ("Own", "NoVal"):
        text = f"_target_: loaders_of_own.{name}\nval: ''\nseed: ${{seed}}\n"
        (tmp_path / "conf" / "data" / f"{name}.yaml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    small = ["trainer.max_epochs=1", "logger=none", "--config-dir", str(tmp_path / "conf")]
    return lambda *args: cli(*small, *args)


def test_data_without_validation_train(own: Callable[..., Result]) -> None:
    assert own("data=Own", "data.val=empty", *BY_TRAINING).metrics["monitor"] == "train_loss"
    refused = own("data=Own", "data.val=empty")
    assert refused.status == 2
    assert "there is no validation set" in refused.err
    refused = own("data=Own", "data.val=none", *BY_TRAINING)
    assert refused.status == 2
    assert refused.err == "data: Own.val_dataloader() gives None; an empty list stands for no batches\n"


def test_a_validation_set_of_unknown_length_is_one(own: Callable[..., Result]) -> None:
    assert "val_loss" in own("data=Own", "data.val=stream").metrics["fit"]
    refused = own("data=Own", "data.val=stream", "trainer.limit_val_batches=0.5")
    assert refused.status == 2
    assert refused.err.startswith("trainer.limit_val_batches=0.5: the number of batches is unknown")


def test_data_that_define_no_loaders(own: Callable[..., Result]) -> None:
    refused = own("data=NoVal", *BY_TRAINING)
    assert refused.status == 2
    assert refused.err == "data: NoVal has no test_dataloader; set test=false, or define it\n"
    assert own("data=NoVal", "test=false", *BY_TRAINING).metrics["test"] == {}


def test_a_clock_that_stands_still_ends_no_run(own: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 1.0)
    assert own("data=Own", "data.val=set").status == 0


@pytest.mark.parametrize(
    ("setting", "threads"), [("", 8), ("4", 4), ("2,1", 2), (" 3 ", 3), ("0", 8), ("many", 8), (",", 8), ("-1", 8)]
)
def test_the_number_of_threads_is_that_of_the_outermost_level(setting: str, threads: int) -> None:
    assert _threads(setting, 8) == threads


@pytest.mark.parametrize(("devices", "written"), [(0, "0"), ([], "[]"), (-1, "-1"), ("0", "0"), (-2, "-2")])
def test_no_devices_cost_a_sentence(devices: object, written: str) -> None:
    cfg = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": devices, "num_nodes": 1}})
    with pytest.raises(InputError) as error:
        num_processes(cfg)
    assert str(error.value).startswith(f"trainer.devices={written}: ")


def test_a_full_disk_is_told_without_a_file() -> None:
    assert sentence(OSError(28, "No space left on device")) == "No space left on device: a file could not be written"
    assert sentence(OSError(5, "Input/output error")) is None


def test_a_sweeps_table_is_shown_where_it_cannot_be_written(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runwright.launch.application.write_summary", full)
    small = ["data=iris", *BY_TRAINING, "logger=none", "trainer.max_epochs=1", "hydra.sweep.dir=here"]
    made = cli("-m", *small, "seed=1,2")
    assert "here/summary.json: No space left on device: the table below is not saved" in made.err
    assert "Traceback" not in made.err
    assert "train_loss" in made.out
    assert len(made.run_dirs) == 2
    assert json.loads((made.run_dirs[0] / "metrics.json").read_text())["name"] == "iris"
