import csv
import json
import logging

import pytest
import torch
from conftest import parts
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from runwright.loop.speed import Profile, Speed


def fit(tmp_path, callback, logger=False, epochs=3):
    # 96 of 150 samples train, in three batches
    data, task = parts("data=iris", "model.hidden=[6]", "data.batch_size=32", "data.val_size=0.2")
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        default_root_dir=tmp_path,
        callbacks=[callback],
        logger=logger,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(task, datamodule=data)
    return trainer


def test_each_epoch_has_its_speed_and_steps_pay_nothing_for_it(tmp_path):
    fit(tmp_path, Speed(), CSVLogger(tmp_path, name="", version=""))
    points = [row for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["speed/ms_per_step"]]
    assert [point["step"] for point in points] == ["2", "5", "8"]
    for point in points:
        seconds = 3 * float(point["speed/ms_per_step"]) / 1000
        assert seconds * float(point["speed/samples_per_s"]) == pytest.approx(96)
    assert "on_train_batch_start" not in vars(Speed)
    assert "on_train_batch_end" not in vars(Speed)


def test_a_profile_prints_ten_items_and_writes_a_trace_that_viewers_read(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="runwright"):
        fit(tmp_path, Profile(num_steps=1))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"].startswith("ProfilerStep#") and event["ph"] == "X" for event in events) == 1
    assert sum(event["name"] == "aten::addmm" for event in events) == 2  # one for each layer
    (said,) = [record.getMessage() for record in caplog.records if record.name == "runwright.loop.speed"]
    head, *items, where = said.splitlines()
    assert len(items) == 10
    costs = [float(item.split()[0]) for item in items]
    assert costs == sorted(costs, reverse=True)
    assert sum(costs) <= float(head.split()[-2]) + 0.01
    assert "ProfilerStep*" in said
    assert where == f"trace: {tmp_path / 'trace.json'}"


def test_a_run_too_short_to_profile_says_so(tmp_path, caplog):
    fit(tmp_path, Profile(num_steps=30))
    assert "takes 60 steps, this run has made 9" in caplog.text
    assert not (tmp_path / "trace.json").exists()


def test_a_profile_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="num_steps must be a whole number of at least 1, got 0"):
        Profile(0)


def test_profiling_changes_no_number(tmp_path):
    weights = []
    for callback in (Speed(), Profile(2)):
        trainer = fit(tmp_path, callback)
        weights.append(nn.utils.parameters_to_vector(trainer.lightning_module.parameters()))
    assert torch.equal(*weights)
