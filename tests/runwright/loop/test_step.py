"""The direct step is Lightning's step: the same numbers, calls and records, at a fraction of the calls."""

import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import CONF
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional
from torch.optim import LBFGS, SGD
from torch.utils.data import DataLoader, TensorDataset

from runwright.loop.step import TrainingEpoch
from runwright.training.build import construct

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


@pytest.mark.parametrize("callbacks", ["default", "[default,max_norm]"])
def test_a_step_of_the_default_run_costs_a_bounded_number_of_calls(tmp_path, callbacks):
    num_steps = 200
    settings = ["trainer.accelerator=cpu", "trainer.max_epochs=1", f"trainer.limit_train_batches={num_steps}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*settings, "data.batch_size=4", f"callbacks={callbacks}"])
    data, task, trainer = construct(cfg, tmp_path)
    counter = Counter()
    trainer.callbacks.append(counter)
    trainer.fit(task, datamodule=data)
    num_strides = num_steps / trainer.log_every_n_steps
    assert trainer.fit_loop.epoch_loop.is_direct
    assert counter.counts["python"] / num_steps < 300  # Lightning's own step makes some 1,000
    assert counter.counts["log_metrics"] <= 4 * num_strides
    assert counter.counts["add_scalar"] <= 5 * num_strides
    assert counter.counts["item"] + counter.counts["tolist"] <= 8 * num_strides  # TensorBoard converts each scalar
