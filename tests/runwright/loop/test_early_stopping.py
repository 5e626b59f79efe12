"""Early stopping against a plain loop, whatever is monitored and whenever there is validation."""

from itertools import cycle, islice
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from runwright.loop.early_stopping import EarlyStopping

LOSSES = [5.0, 4.0, 3.0, 2.99, 3.1, 2.995, 2.5, 2.6, 2.7, 2.8, 2.9, 2.4, 2.3, 2.2]


class Scripted(LightningModule):
    """Reports LOSSES as its losses: one after each validation, one after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.num_validations = 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).sum()

    def on_train_epoch_end(self) -> None:
        self.log("train_loss", torch.tensor(LOSSES[self.current_epoch % len(LOSSES)]))

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.tensor(LOSSES[self.num_validations % len(LOSSES)]))
        self.num_validations += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def length_of_a_plain_loop(patience: int, min_delta: float, longest: int = len(LOSSES)) -> int:
    best, waited = float("inf"), 0
    for i, loss in enumerate(islice(cycle(LOSSES), longest)):
        if loss < best - min_delta:
            best, waited = loss, 0
        else:
            waited += 1
            if waited >= patience:
                return i + 1
    return longest


def fit(callback: EarlyStopping, **options: Any) -> tuple[Scripted, Trainer]:
    task = Scripted()
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, callbacks=[callback],
        **{"max_epochs": len(LOSSES), **options},
    )  # fmt: skip
    loader = DataLoader(torch.ones(4, 1), batch_size=1)
    trainer.fit(task, loader, loader)
    return task, trainer


@pytest.mark.parametrize("patience", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("min_delta", [0.0, 0.05, 0.7])
def test_training_stops_at_the_epoch_at_which_a_plain_loop_stops(patience: int, min_delta: float) -> None:
    _, trainer = fit(EarlyStopping("val_loss", mode="min", patience=patience, min_delta=min_delta))
    assert trainer.current_epoch == length_of_a_plain_loop(patience, min_delta)


WHEN = {
    "twice an epoch": {"val_check_interval": 0.5},
    "after every batch": {"val_check_interval": 1},
    "every third batch": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "every other epoch": {"check_val_every_n_epoch": 2},
    "never": {"limit_val_batches": 0},
}


@pytest.mark.parametrize("patience", [1, 3, 5])
@pytest.mark.parametrize("when", WHEN)
def test_each_validation_counts_once(when: str, patience: int) -> None:
    task, _ = fit(EarlyStopping("val_loss", patience=patience, strict=False), **WHEN[when], max_epochs=60)
    assert task.num_validations == (0 if when == "never" else length_of_a_plain_loop(patience, 0.0, 100))


@pytest.mark.parametrize("patience", [1, 3, 5])
@pytest.mark.parametrize("when", WHEN)
def test_each_train_loss_counts_once(when: str, patience: int) -> None:
    _, trainer = fit(EarlyStopping("train_loss", patience=patience), **WHEN[when], max_epochs=60)
    assert trainer.current_epoch == length_of_a_plain_loop(patience, 0.0, 60)


@pytest.mark.parametrize("monitor", ["val_loss", "train_loss"])
def test_an_epoch_that_is_cut_short_counts_for_nothing(monitor: str) -> None:
    whole, short = EarlyStopping(monitor, patience=1), EarlyStopping(monitor, patience=1)
    fit(whole, max_epochs=3)
    fit(short, max_steps=3 * 4 + 1)
    assert short.state_dict() == whole.state_dict()
