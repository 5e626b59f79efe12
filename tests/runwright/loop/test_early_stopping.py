"""Lightning's early stopping, as our configuration uses it, against a plain loop."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader

LOSSES = [5.0, 4.0, 3.0, 2.99, 3.1, 2.995, 2.5, 2.6, 2.7, 2.8, 2.9, 2.4, 2.3, 2.2]


class Scripted(LightningModule):
    """Reports LOSSES as its validation losses, one an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.layer(batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val_loss", torch.tensor(LOSSES[self.current_epoch]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def epochs_of_a_plain_loop(patience: int, min_delta: float) -> int:
    best, waited = float("inf"), 0
    for epoch, loss in enumerate(LOSSES):
        if loss < best - min_delta:
            best, waited = loss, 0
        else:
            waited += 1
            if waited >= patience:
                return epoch + 1
    return len(LOSSES)


@pytest.mark.parametrize("patience", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("min_delta", [0.0, 0.05, 0.7])
def test_training_stops_at_the_epoch_at_which_a_plain_loop_stops(patience, min_delta):
    trainer = Trainer(
        max_epochs=len(LOSSES), accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[EarlyStopping("val_loss", mode="min", patience=patience, min_delta=min_delta)],
    )  # fmt: skip
    loader = DataLoader(torch.ones(2, 1), batch_size=1)
    trainer.fit(Scripted(), loader, loader)
    assert trainer.current_epoch == epochs_of_a_plain_loop(patience, min_delta)
