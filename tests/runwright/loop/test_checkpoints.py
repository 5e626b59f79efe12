"""A task that is not ours goes on as ours do, and what is kept as the best is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from own_parts import Loader, Samples
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from runwright.loop.checkpoint_io import DurableCheckpoints
from runwright.loop.checkpoints import BestCheckpoint, LastCheckpoint
from runwright.loop.step import TrainingEpoch

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


def fit(
    folder: Path, interval: str = "epoch", resumed: bool = False, callbacks: Sequence[Callback] = (), **options: Any
) -> tuple[Plain, Trainer]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8 * BATCHES - 3, 3, generator=generator)
    samples = Samples(x, x.argmax(1) % 2)
    task = Plain(interval)
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[*callbacks, LastCheckpoint()], default_root_dir=folder, plugins=[DurableCheckpoints()],
        num_sanity_val_steps=0, **options,
    )  # fmt: skip
    TrainingEpoch.install(trainer)
    path = folder / "checkpoints" / "last.ckpt" if resumed else None
    trainer.fit(task, Loader(samples, 8, seed=0), Loader(samples, 20), ckpt_path=path, weights_only=True)
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


class Scores(Callback):
    """Gives every validation and every epoch of training a score, and keeps the weights that had it."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.given: list[tuple[float, torch.Tensor]] = []

    def _give(self, trainer: Trainer, task: Plain) -> None:
        score = torch.tensor([0.5, 0.7, 0.3, 0.6, 0.2, 0.9, 0.4, 0.8, 0.1, 1.0][len(self.given) % 10])
        trainer.callback_metrics[self.monitor] = score
        self.given.append((float(score), task.layer.weight.detach().clone()))

    def on_validation_end(self, trainer: Trainer, task: Plain) -> None:  # type: ignore[override]
        if self.monitor.startswith("val_"):
            self._give(trainer, task)

    def on_train_epoch_end(self, trainer: Trainer, task: Plain) -> None:  # type: ignore[override]
        if self.monitor.startswith("train_") and trainer.is_last_batch:
            self._give(trainer, task)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("top", [1, 3, -1])
@pytest.mark.parametrize("monitor", ["val_score", "train_score"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_epochs": 5},
        {"max_epochs": 9, "max_steps": 18},
        {"max_epochs": 7, "check_val_every_n_epoch": 2},
        {"max_epochs": 2, "val_check_interval": 1},
        {"max_epochs": 9, "max_steps": 19, "val_check_interval": 0.4},
        {"max_epochs": 5, **ACROSS},
    ],
    ids=str,
)
def test_the_best_are_of_the_weights_that_had_their_score(
    tmp_path: Path, options: dict[str, Any], monitor: str, top: int
) -> None:
    scores = Scores(monitor)
    best = BestCheckpoint(
        filename="best-{epoch}", auto_insert_metric_name=False, monitor=monitor, save_top_k=top,
        enable_version_counter=False, save_on_train_epoch_end=True,
    )  # fmt: skip
    fit(tmp_path, callbacks=[scores, best], **options)
    expected = sorted(scores.given, key=lambda given: given[0])[: None if top == -1 else top]
    kept = sorted((float(score), path) for path, score in best.best_k_models.items())
    assert [score for score, _ in kept] == [score for score, _ in expected]
    assert {str(path) for path in (tmp_path / "checkpoints").glob("best-*")} == set(best.best_k_models)
    for (_, path), (_, weight) in zip(kept, expected, strict=True):
        assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["layer.weight"], weight)
