"""A run whose numbers go wrong does not go on in silence."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CONF, Result
from lightning import Callback, LightningModule, Trainer

from runwright.loop.nonfinite import NonFinite
from runwright.rundir import trust

# Three epochs of 11 batches.
SMALL = ["trainer.max_epochs=3", "data.batch_size=128", "model.hidden=[16]", "trainer.log_every_n_steps=4"]


class Spoil(Callback):
    """Makes one gradient NaN at a step, one validation's score, or nothing."""

    step = -1

    def __init__(self, what: str) -> None:
        self.what = what

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.what == "gradient" and trainer.global_step == Spoil.step:
            pl_module.get_parameter("model.output.weight").grad[0, 0] = float("nan")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.what == "loss" and trainer.global_step == Spoil.step:
            batch.x[:] = float("inf")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.what == "val_loss" and trainer.global_step >= Spoil.step:
            trainer.callback_metrics["val_loss"] = torch.tensor(float("nan"))


def spoiled(what: str) -> list[str]:
    return [*SMALL, f"+callbacks.spoil._target_={__name__}.Spoil", f"+callbacks.spoil.what={what}"]


@pytest.mark.parametrize(
    ("what", "step", "expected"),
    [
        ("loss", 13, ["step 14: the loss is", "first layer affected: model.hidden_0"]),
        ("loss", 31, ["step 32: the loss is"]),  # after the second to last check
        (
            "gradient",
            32,
            ["step 33: the weights are not finite", "first layer affected: model.output"],
        ),  # the last step
        ("val_loss", 22, ["epoch 1: val_loss is nan"]),
    ],
)
def test_it_stops_and_says_where(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, what: str, step: int, expected: list[str]
) -> None:
    monkeypatch.setattr(Spoil, "step", step)
    result = cli(*spoiled(what))
    assert result.status == 1
    assert "Traceback" not in result.err
    assert all(fragment in result.out.splitlines()[-1] for fragment in expected), result.out[-500:]
    assert_good(result.run_dirs[0])


def test_the_last_checkpoint_is_good_and_goes_on(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoil, "step", 13)
    (run_dir,) = cli(*spoiled("gradient"), "callbacks.last_checkpoint.every_n_steps=1").run_dirs
    assert_good(run_dir)
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 13
    assert not (run_dir / "metrics.json").exists()
    monkeypatch.setattr(Spoil, "step", -1)
    listed = trust.read_trusted(CONF)
    monkeypatch.setattr(trust, "read_trusted", lambda conf: replace(listed, packages=(*listed.packages, __name__)))
    result = cli(f"resume={run_dir}")
    assert result.status == 0, result.err
    assert torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 33
    assert not (run_dir / "error.txt").exists()


@pytest.mark.slow
def test_all_processes_stop_together_when_one_has_a_bad_loss(process: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "spoil.py").write_text(SPOIL_RANK_1)
    two = ["trainer=ddp", "trainer.accelerator=cpu", "+callbacks.spoil._target_=spoil.Spoil"]
    result = process(*SMALL, *two, PYTHONPATH=str(tmp_path))
    assert result.status == 1
    assert "step 3: the loss is" in result.out.splitlines()[-1]
    assert "first layer affected: model.hidden_0" in result.out.splitlines()[-1]
    assert "Traceback" not in result.err
    assert not (result.run_dirs[0] / "checkpoints").exists()


SPOIL_RANK_1 = """
from lightning import Callback

class Spoil(Callback):
    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        if trainer.global_rank == 1 and batch_idx == 2:
            batch.x[:] = float("inf")
"""


def assert_good(run_dir: Path) -> None:
    checkpoints = list((run_dir / "checkpoints").iterdir())
    assert checkpoints
    for path in checkpoints:
        checkpoint = torch.load(path, weights_only=True)
        assert all(weight.isfinite().all() for weight in checkpoint["state_dict"].values()), path


@pytest.mark.parametrize("optimizer", ["sgd_momentum", "adam"])
def test_skip_leaves_out_that_update_and_no_other(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    monkeypatch.setattr(Spoil, "step", 13)
    result = cli(*spoiled("gradient"), "on_nonfinite=skip", f"optimizer={optimizer}")
    assert "epoch 1: updates skipped: 1" in result.out
    assert result.metrics["steps"] == 33
    assert_good(result.run_dir)


def test_ignored_it_is_never_the_best(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spoil, "step", 13)
    result = cli(*spoiled("gradient"), "on_nonfinite=ignore", "+callbacks.early_stopping.check_finite=false")
    assert result.metrics["epochs"] == 3
    names = [path.name for path in (result.run_dirs[0] / "checkpoints").iterdir()]
    assert "best-000.ckpt" in names
    assert not {"best-001.ckpt", "best-002.ckpt"} & set(names)


def test_another_action_is_refused() -> None:
    with pytest.raises(ValueError, match="must be stop, skip or ignore, got 'halt'"):
        NonFinite("halt")  # type: ignore[arg-type]


def test_deterministic_is_one_switch(cli: Callable[..., Result]) -> None:
    result = cli(*SMALL, "trainer.deterministic=true", f"+callbacks.look._target_={__name__}.Look")
    assert result.status == 0, result.err
    assert Look.seen == (True, False)


class Look(Callback):
    seen: tuple[bool, bool] | None = None

    def on_train_start(self, *args: Any) -> None:
        Look.seen = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
