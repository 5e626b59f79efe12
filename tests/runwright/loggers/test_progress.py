import logging
import re

import pytest
from conftest import composed, parts
from lightning import Callback, Trainer

from runwright.loggers.progress import Progress
from runwright.training.build import make


class Recorder(Callback):
    """The metrics of each epoch, once all of them are there."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, *args):
        if trainer.current_epoch:
            self.on_train_end(trainer)

    def on_train_end(self, trainer, *args):
        self.epochs.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def fit(caplog, callbacks, val_size=0.2, **options):
    """The lines that training says."""
    sizes = ("model.hidden=[6]", "data.batch_size=32", f"data.val_size={val_size}")
    data, task = parts("data=iris", "optimizer=sgd", "optimizer.lr=0.1", *sizes)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **{"max_epochs": 3, **options},
    )
    with caplog.at_level(logging.INFO, logger="runwright"):
        trainer.fit(task, datamodule=data)
        trainer.test(task, datamodule=data, verbose=False)
    return [record.getMessage() for record in caplog.records if record.name == "runwright.loggers.progress"]


def test_without_a_terminal_each_epoch_is_one_line_with_its_own_metrics(caplog, capsys):
    recorder = Recorder()
    lines = fit(caplog, [Progress(), recorder])
    assert len(recorder.epochs) == 3
    assert len({metrics["train_loss"] for metrics in recorder.epochs}) == 3
    assert lines == [
        f"epoch {number}/3  train_loss {metrics['train_loss']:.4f}  "
        f"val_acc {metrics['val_acc']:.4f}  val_loss {metrics['val_loss']:.4f}"
        for number, metrics in enumerate(recorder.epochs, start=1)
    ]
    assert capsys.readouterr().out == ""


def test_without_a_validation_set_the_train_loss_is_shown(caplog):
    lines = fit(caplog, [Progress()], val_size=0)
    assert len(lines) == 3
    assert all(re.fullmatch(r"epoch \d/3  train_loss \d\.\d{4}", line) for line in lines)


def test_weight_norms_stay_out_of_the_line(caplog):
    (line,) = fit(caplog, [make(composed(), "callbacks.weight_norm"), Progress()], max_epochs=1)
    assert "norm" not in line


def test_a_run_that_max_steps_ends_says_each_epoch_once(caplog):
    lines = fit(caplog, [Progress()], max_steps=5)  # the second epoch's second of three
    assert [line.split()[1] for line in lines] == ["1/3", "2/3"]


@pytest.mark.parametrize("refresh_rate", [1, 20])
def test_on_a_terminal_there_is_a_bar_and_no_line(caplog, capsys, monkeypatch, refresh_rate):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert fit(caplog, [Progress(refresh_rate)], max_epochs=1) == []
    shown = capsys.readouterr()
    assert re.search(r"epoch 1/1 .*loss \d\.\d{4}  val_acc \d\.\d{4}  lr 0\.1", shown.out)
