"""The direct step is Lightning's step: the same numbers, calls and records, at a fraction of the calls."""

import logging
import sys
from contextlib import contextmanager

import lightning
import pytest
import torch
from bits import differences, left_by
from conftest import composed
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.nn import functional
from torch.optim import LBFGS, SGD
from torch.utils.data import DataLoader, TensorDataset

from runwright.loop.step import TrainingEpoch
from runwright.training.build import construct
from runwright.training.train import train

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}


class Classifier(LightningModule):
    """Logs and schedules in as many ways as there are."""

    def __init__(self, optimizer=SGD, interval="step"):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.interval = torch.nn.Linear(4, 3), interval
        self.make_optimizer = optimizer

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = functional.cross_entropy(self.layer(x), y)
        self.log("both", loss, on_step=True, on_epoch=True)
        if batch_idx == 3 and self.make_optimizer is not LBFGS:  # which needs a loss
            return None
        return {"loss": loss, "more": batch_idx} if batch_idx % 2 else loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", functional.cross_entropy(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = self.make_optimizer(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.7)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}


class Diary(Callback):
    """Every call of a batch hook and what could be read there."""

    def __init__(self):
        self.pages = []

    def _write(self, trainer, task, *args):
        numbers = [arg for arg in args if isinstance(arg, int)]
        losses = [float(arg["loss"]) for arg in args if isinstance(arg, dict) and "loss" in arg]
        weights = torch.nn.utils.parameters_to_vector(task.parameters()).tolist()
        known = {key: float(value) for key, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.pages.append((task._current_fx_name, trainer.global_step, numbers, losses, known, rate, weights))

    on_train_batch_start = on_train_batch_end = on_train_epoch_end = on_validation_end = _write


class Stops(Callback):
    """As a timer does: in the middle of an epoch."""

    def on_train_batch_end(self, trainer, task, output, batch, batch_idx):
        trainer.should_stop = batch_idx >= 2


def loader(size=43):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, 4, generator=generator)
    return DataLoader(TensorDataset(x, x.argmax(1) % 3), batch_size=8)


def fit(folder, direct, callbacks=(), task=None, ckpt_path=None, **options):
    diary, saver = Diary(), ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=4)
    options = {**QUIET, "max_epochs": 3, "log_every_n_steps": 2, **options}
    trainer = Trainer(accelerator="cpu", devices=1, callbacks=[diary, saver, *callbacks], **options)
    if direct is not None:
        TrainingEpoch.install(trainer)
    trainer.fit(task or Classifier(), loader(), loader(11), ckpt_path=ckpt_path, weights_only=ckpt_path and True)
    if direct is not None:
        assert trainer.fit_loop.epoch_loop.is_direct == direct
    return diary.pages, trainer.fit_loop.state_dict()


DIRECT = {  # runs whose steps are all taken by it
    "plain": {},
    "max_steps": {"max_steps": 8, "max_epochs": -1},
    "limit_train_batches": {"limit_train_batches": 2},
    "validation within epochs": {"val_check_interval": 2},
    "validation every four steps": {"val_check_interval": 4, "check_val_every_n_epoch": None},
    "stopped within epochs": {"callbacks": [Stops()]},
    "stopped after min_steps": {"callbacks": [Stops()], "min_steps": 5},
    "fast_dev_run": {"fast_dev_run": True},
    "schedule per epoch": {"task": lambda: Classifier(interval="epoch")},
    "LBFGS": {"task": lambda: Classifier(optimizer=LBFGS)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", DIRECT.values(), ids=DIRECT)
def test_it_does_and_records_what_lightning_does(tmp_path, options):
    runs = []
    for name, direct in (("lightning", None), ("direct", True)):
        task = options.get("task", Classifier)()
        runs.append(fit(tmp_path / name, direct, **{**options, "task": task}))
    assert runs[0] == runs[1]
    saved = sorted(path.name for path in (tmp_path / "lightning").glob("*"))
    assert sorted(path.name for path in (tmp_path / "direct").glob("*")) == saved
    for name in saved:
        first, second = (torch.load(tmp_path / run / name, weights_only=True) for run in ("lightning", "direct"))
        assert first["loops"] == second["loops"]
        assert first["lr_schedulers"] == second["lr_schedulers"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("step", [4, 8])
def test_a_run_resumed_within_an_epoch_goes_on_as_lightning_does(tmp_path, step):
    fit(tmp_path, direct=None)
    checkpoint = next(tmp_path.glob(f"step={step}.ckpt"))
    assert fit(tmp_path / "a", None, ckpt_path=checkpoint) == fit(tmp_path / "b", True, ckpt_path=checkpoint)


class WatchesGradients(Callback):
    def on_after_backward(self, trainer, task):
        assert task.layer.weight.grad is not None


class Clips(Classifier):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(optimizer, 0.1, "norm")

    def training_step(self, batch):
        return functional.cross_entropy(self.layer(batch[0]), batch[1])


class ClearsToZero(SGD):
    def zero_grad(self, set_to_none=False):
        super().zero_grad(set_to_none=False)


LEFT_TO_LIGHTNING = {
    "accumulated gradients": {"accumulate_grad_batches": 2},
    "clipped gradients": {"gradient_clip_val": 0.01},
    "another precision": {"precision": "bf16-mixed"},
    "a profiler": {"profiler": "simple"},
    "a hook within the step": {"callbacks": [WatchesGradients()], "limit_train_batches": 3},
    "clipping of the task's own": {"task": Clips},
    "zero_grad of the optimizer's own": {"task": lambda: Classifier(optimizer=ClearsToZero)},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", LEFT_TO_LIGHTNING.values(), ids=LEFT_TO_LIGHTNING)
def test_what_it_does_not_know_is_left_to_lightning(tmp_path, options):
    runs = []
    for name, direct in (("lightning", None), ("direct", False)):
        task = options.get("task", Classifier)()
        runs.append(fit(tmp_path / name, direct, **{**options, "task": task}))
    assert runs[0] == runs[1]


@contextmanager
def counted_calls():
    """Counts the calls of Python functions, and of TensorBoard and of tensors for a value, by name."""
    counts = {"python": 0, "item": 0, "tolist": 0, "log_metrics": 0, "add_scalar": 0}

    def count(frame, event, arg):
        name = frame.f_code.co_name if event == "call" else getattr(arg, "__name__", "")
        if event == "call":
            counts["python"] += 1
        if event in ("call", "c_call") and name in counts:
            counts[name] += 1

    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(None)


class Counter(Callback):
    """Counts through one epoch of training, validation left out."""

    def on_train_epoch_start(self, *args):
        self.context = counted_calls()
        self.counts = self.context.__enter__()

    def on_validation_start(self, *args):
        self.context.__exit__(None, None, None)


def counts_of(folder, step_loop, num_steps, callbacks):
    settings = ["trainer=cpu", "trainer.max_epochs=1", f"trainer.limit_train_batches={num_steps}"]
    cfg = composed(*settings, "data.batch_size=4", f"callbacks={callbacks}", f"step_loop={step_loop}")
    data, task, trainer = construct(cfg, folder)
    counter = Counter()
    trainer.callbacks.append(counter)
    trainer.fit(task, datamodule=data)
    assert getattr(trainer.fit_loop.epoch_loop, "is_direct", False) == (step_loop == "direct")
    return counter.counts, num_steps / trainer.log_every_n_steps


@pytest.mark.parametrize("callbacks", ["default", "[default,max_norm]"])
def test_a_step_of_the_default_run_takes_less_than_half_of_lightnings_calls(tmp_path, callbacks):
    direct, num_strides = counts_of(tmp_path / "direct", "direct", 200, callbacks)
    lightnings, _ = counts_of(tmp_path / "lightning", "lightning", 200, callbacks)
    assert direct["python"] < lightnings["python"] / 2
    assert direct["log_metrics"] <= 4 * num_strides
    assert direct["add_scalar"] <= 5 * num_strides
    assert direct["item"] + direct["tolist"] <= 8 * num_strides  # TensorBoard converts each scalar


CONFIGURATIONS = {
    "default": [],
    "adam": ["optimizer=adam", "scheduler=cosine", "scheduler.warmup_steps=5", "model.dropout=0.2"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.9", "optimizer=nesterov"],
    "plateau per batch": ["scheduler=plateau_per_batch", "scheduler.patience=1"],
    "max_norm, ema": ["callbacks=[default,max_norm,ema]", "optimizer=adagrad"],
    "within epochs": ["callbacks.last_checkpoint.every_n_steps=3", "+trainer.val_check_interval=4"],
    "regression": ["data=linear", "task=regression", "data.num_train=300", "data.val_size=0.2", "trainer.max_steps=3"],
    "no validation": ["data=iris", "callbacks=no_validation", "monitor=train_loss", "data.batch_size=16"],
    "left to Lightning": ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_run_has_the_bits_of_one_with_lightnings_loop(tmp_path, options):
    small = ["trainer=cpu", "trainer.max_epochs=2", "data.batch_size=128", "model.hidden=[16]", "report=false"]
    left = []
    for step_loop in ("direct", "lightning"):
        run_dir = tmp_path / step_loop
        train(composed(*small, "trainer.log_every_n_steps=4", *options, f"step_loop={step_loop}"), run_dir)
        left.append(left_by(run_dir))
    assert not list(differences(*left))
    assert left[0]["metrics"]["steps"] > 2
    assert left[0]["checkpoints"]


@pytest.mark.parametrize(("version", "expected"), [("2.6.99", TrainingEpoch), ("2.7.0", _TrainingEpochLoop)])
def test_with_a_lightning_that_it_was_not_checked_with_lightnings_own_loop_is_used(
    tmp_path, monkeypatch, caplog, version, expected
):
    monkeypatch.setattr(lightning, "__version__", version)
    with caplog.at_level(logging.INFO, logger="runwright"):
        _, _, trainer = construct(composed("trainer=cpu"), tmp_path)
    assert type(trainer.fit_loop.epoch_loop) is expected
    said = f"step_loop=direct was not checked with Lightning {version}: its own loop is used"
    assert (said in caplog.text) == (expected is _TrainingEpochLoop)
