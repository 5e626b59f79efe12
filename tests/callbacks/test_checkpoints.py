"""A task and loaders that are not ours go on as well: what Lightning itself does where a run is resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from litmlp.callbacks.checkpoints import LastCheckpoint
from litmlp.checkpoint_io import DurableCheckpoints
from litmlp.data.in_memory import Batches, Samples
from litmlp.training_epoch import TrainingEpoch

BATCHES = 5  # of an epoch
ACROSS = {"val_check_interval": 3, "check_val_every_n_epoch": None}  # every third batch, whatever the epoch


class Plain(LightningModule):
    """As Lightning's users write one, with its plateau, whose rate falls wherever it is stepped but once."""

    def __init__(self, interval: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.interval = nn.Linear(3, 2), interval
        self.seen: list[list[float]] = []

    def training_step(self, batch: Samples, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch.x.flatten().tolist())
        return nn.functional.cross_entropy(self.layer(batch.x), batch.y)

    def validation_step(self, batch: Samples, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.layer(batch.x), batch.y), batch_size=len(batch.y))

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = SGD(self.parameters(), lr=0.1, momentum=0.9)
        plateau = ReduceLROnPlateau(optimizer, factor=0.9, patience=0, threshold=1.0)
        schedule = {"scheduler": plateau, "interval": self.interval, "monitor": "val_loss", "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def fit(folder: Path, interval: str = "epoch", resumed: bool = False, **options: object) -> tuple[Plain, Trainer]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * BATCHES - 3, 3, generator=generator)
    samples = Samples(x, x.argmax(1) % 2)
    task = Plain(interval)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[LastCheckpoint()], default_root_dir=folder, plugins=[DurableCheckpoints()], num_sanity_val_steps=0,
        **options,  # type: ignore[arg-type]
    )  # fmt: skip
    TrainingEpoch.install(trainer)
    path = folder / "checkpoints" / "last.ckpt" if resumed else None
    trainer.fit(task, Batches(samples, 8, seed=0), Batches(samples, 20), ckpt_path=path, weights_only=True)
    return task, trainer


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize(
    "ends",
    [
        [{"max_epochs": 2}, {"max_epochs": 4}],
        [{"max_epochs": -1, "max_steps": 10}, {"max_epochs": -1, "max_steps": 20}],
        [{"max_epochs": 9, "max_steps": 5}, {"max_epochs": 9, "max_steps": 10}, {"max_epochs": 4}],
        [{"max_epochs": -1, "max_steps": end} for end in (2, 7, 8, 13)],
        [{"max_epochs": 9, "max_steps": end, "val_check_interval": 2} for end in (1, 4, 7, 14)],
        [{"max_epochs": 9, "max_steps": end, **ACROSS} for end in (1, 2, 3, 4, 6, 11)],
        [{"max_epochs": 9, "max_steps": end, "accumulate_grad_batches": 2} for end in (1, 4, 5, 7)],
    ],
    ids=str,
)
def test_a_longer_run_sees_the_batches_and_ends_with_the_weights_of_one_that_was_never_stopped(
    tmp_path: Path, ends: list[dict[str, Any]], interval: str
) -> None:
    whole, whole_trainer = fit(tmp_path / "whole", interval, **ends[-1])
    seen: list[list[float]] = []
    for i, end in enumerate(ends):
        task, trainer = fit(tmp_path / "parts", interval, resumed=i > 0, **end)
        seen += task.seen
    assert seen == whole.seen
    assert (trainer.global_step, trainer.current_epoch) == (whole_trainer.global_step, whole_trainer.current_epoch)
    assert (
        trainer.optimizers[0].state_dict()["param_groups"] == whole_trainer.optimizers[0].state_dict()["param_groups"]
    )
    assert torch.equal(task.layer.weight, whole.layer.weight)
