from functools import partial

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError, R2Score

from litmlp.data.in_memory import InMemoryData, Samples
from litmlp.models.mlp import MLP
from litmlp.optim import Schedule
from litmlp.tasks import supervised
from litmlp.tasks.supervised import SupervisedTask
from runwright.loop.step import TrainingEpoch

NUM_TRAIN, NUM_VAL, BATCH = 43, 17, 8
NUM_BATCHES = 6  # the last of three samples
EPOCHS = 5


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads cost more than they bring on batches of eight."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


class Tiny(InMemoryData):
    sample_shape = (5,)
    num_outputs = 3
    stratify = False

    def load(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(90, 5, generator=generator)
        y = (x @ torch.randn(5, 3, generator=generator) + torch.randn(90, 3, generator=generator)).argmax(1)
        return Samples(x[:60], y[:60]), Samples(x[60:], y[60:])


class TinyRegression(Tiny):
    def load(self):
        return tuple(Samples(x, x.square().sum(1, keepdim=True) + x[:, :3]) for x, _ in super().load())


class Memory(Logger):
    """Keeps what is logged, as (step, {key: value})."""

    name = version = "memory"

    def __init__(self):
        self.points = []

    def log_metrics(self, metrics, step=None):
        self.points.append((step, {key: float(value) for key, value in metrics.items()}))

    def log_hyperparams(self, *args, **kwargs):
        pass

    def curve(self, key):
        return [(step, metrics[key]) for step, metrics in self.points if key in metrics]


class Recorder(Callback):
    """The rate and momentum of each step, and the weights after it."""

    def __init__(self):
        self.rates, self.weights = [], []

    def on_train_batch_start(self, trainer, *args):
        self.rates.append(rate(trainer.optimizers[0]))

    def on_train_batch_end(self, trainer, task, *args):
        self.weights.append(flat(task.model))


def rate(optimizer):
    return optimizer.param_groups[0]["lr"], optimizer.param_groups[0].get("momentum")


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def make_data(cls=Tiny, **options):
    return cls(**{"batch_size": BATCH, "eval_batch_size": 5, "val_size": NUM_VAL, "shuffle": False, **options})


def make_model(dropout=0.2):
    torch.manual_seed(1)
    return MLP((5,), 3, hidden=[7], dropout=dropout)


MOMENTUM = partial(SGD, lr=0.3, momentum=0.9)


def make_task(optimizer=MOMENTUM, schedule=None, loss=None, metrics=None, dropout=0.2, **options):
    metrics = {"acc": MulticlassAccuracy(3, average="micro")} if metrics is None else metrics
    schedule = schedule or Schedule(StepLR, step_size=100)
    return SupervisedTask(make_model(dropout), loss or nn.CrossEntropyLoss(), metrics, optimizer, schedule, **options)


@pytest.fixture(autouse=True)
def _means_are_updated_within_epochs(monkeypatch):
    monkeypatch.setattr(supervised, "LOSS_BUFFER_SIZE", 4)


def make_trainer(**options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    defaults = {"logger": False, "enable_checkpointing": False, "max_epochs": EPOCHS, "log_every_n_steps": 1}
    trainer = Trainer(accelerator="cpu", devices=1, **quiet, **{**defaults, **options})
    TrainingEpoch.install(trainer)
    return trainer


def fit(task, data=None, ckpt_path=None, **options):
    trainer = make_trainer(**options)
    torch.manual_seed(2)  # of dropout
    trainer.fit(task, datamodule=data or make_data(), ckpt_path=ckpt_path, weights_only=ckpt_path and True)
    return trainer


class Plain:
    """The same training without Lightning, and what it went through."""

    def __init__(self, optimizer, scheduler, interval="epoch", monitor="val_loss", loss=None, data=None):
        data = data or make_data()
        data.setup()
        model, loss = make_model(), loss or nn.CrossEntropyLoss()
        optimizer = optimizer(model.parameters())
        scheduler = scheduler(optimizer)
        self.rates, self.weights, self.batch_losses = [], [], []
        self.train_losses, self.val_losses, self.scheduler_states = [], [], []
        batches = data.train_dataloader()
        torch.manual_seed(2)
        for epoch in range(EPOCHS):
            batches.set_epoch(epoch)
            model.train()
            total = 0.0
            for x, y in batches:
                self.rates.append(rate(optimizer))
                optimizer.zero_grad()
                batch_loss = loss(model(x), y)
                batch_loss.backward()
                optimizer.step()
                self.weights.append(flat(model))
                self.batch_losses.append(batch_loss.item())
                total += batch_loss.item() * len(y)
                if interval == "step":
                    step(scheduler, batch_loss.item())
            model.eval()
            with torch.no_grad():
                val_loss = loss(model(data.transform(data.val.x)), data.val.y).item()
            self.train_losses.append(total / NUM_TRAIN)
            self.val_losses.append(val_loss)
            if interval == "epoch":
                step(scheduler, val_loss if monitor == "val_loss" else total / NUM_TRAIN)
            self.scheduler_states.append(scheduler.state_dict().copy())


def step(scheduler, monitored):
    scheduler.step(*([monitored] if isinstance(scheduler, ReduceLROnPlateau) else []))


OPTIMIZERS = {
    "sgd": MOMENTUM,
    "fused": partial(MOMENTUM, fused=True),
    "not foreach": partial(MOMENTUM, foreach=False),
    "adam": partial(Adam, lr=0.1),
}
PLATEAU = partial(ReduceLROnPlateau, patience=0, factor=0.5)
PLATEAU_ON_TRAINING = partial(PLATEAU, threshold=0.3)
PLATEAU_PER_BATCH = partial(ReduceLROnPlateau, patience=2, factor=0.7)
ONE_CYCLE = partial(OneCycleLR, max_lr=0.5, cycle_momentum=True)

SCHEDULES = {  # as the task gets it, and as a plain loop does
    "per epoch": (Schedule(StepLR, "epoch", step_size=1, gamma=0.5), partial(StepLR, step_size=1, gamma=0.5)),
    "per batch": (Schedule(StepLR, "step", step_size=4, gamma=0.7), partial(StepLR, step_size=4, gamma=0.7)),
    "plateau per epoch": (Schedule(PLATEAU, "epoch", monitor="val_loss"), PLATEAU),
    "plateau on the epoch's train_loss": (
        Schedule(PLATEAU_ON_TRAINING, "epoch", monitor="train_loss"),
        PLATEAU_ON_TRAINING,
    ),
    "plateau per batch": (Schedule(PLATEAU_PER_BATCH, "step", monitor="train_loss"), PLATEAU_PER_BATCH),
    "one cycle": (
        Schedule(ONE_CYCLE, "step", run_length_as="total_steps"),
        partial(ONE_CYCLE, total_steps=EPOCHS * NUM_BATCHES),
    ),
}
WARM_UP = Schedule(StepLR, "epoch", warmup_steps=8, step_size=1, gamma=0.5)


def warmed_up(optimizer):
    return LambdaLR(optimizer, lambda k: min(1, (k + 1) / 8) * 0.5 ** (k // NUM_BATCHES))


def assert_same(recorder, plain):
    assert recorder.rates == plain.rates
    assert torch.equal(torch.stack(recorder.weights), torch.stack(plain.weights))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("optimizer", ["sgd", "fused"])
def test_training_is_a_plain_loop_bit_for_bit(name, optimizer):
    schedule, scheduler = SCHEDULES[name]
    recorder = Recorder()
    fit(make_task(OPTIMIZERS[optimizer], schedule), callbacks=[recorder])
    plain = Plain(OPTIMIZERS[optimizer], scheduler, schedule.interval, schedule.monitor)
    assert_same(recorder, plain)
    assert len(set(recorder.rates)) > 1, "the schedule did something"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_warmed_up_training_is_a_plain_loop_bit_for_bit(optimizer):
    recorder = Recorder()
    fit(make_task(OPTIMIZERS[optimizer], WARM_UP), callbacks=[recorder])
    assert_same(recorder, Plain(OPTIMIZERS[optimizer], warmed_up, "step"))


def test_each_epoch_of_a_run_has_the_order_of_seed_and_epoch():
    recorder = Recorder()
    fit(make_task(), make_data(shuffle=True, seed=4), callbacks=[recorder])
    data = make_data(shuffle=True, seed=4)
    assert_same(recorder, Plain(MOMENTUM, partial(StepLR, step_size=100), data=data))


def test_a_frequency_in_epochs_skips_epochs():
    recorder = Recorder()
    fit(make_task(schedule=Schedule(StepLR, "epoch", frequency=2, step_size=1, gamma=0.5)), callbacks=[recorder])
    assert_same(recorder, Plain(MOMENTUM, partial(StepLR, step_size=2, gamma=0.5)))


def test_a_plateau_with_a_frequency_skips_epochs():
    recorder = Recorder()
    never_better = partial(PLATEAU, threshold=100.0)
    schedule = Schedule(never_better, "epoch", frequency=2, monitor="val_loss")
    fit(make_task(schedule=schedule), callbacks=[recorder])
    assert [lr for lr, _ in recorder.rates[::NUM_BATCHES]] == [0.3, 0.3, 0.15, 0.15, 0.075]


@pytest.mark.parametrize("options", [{"frequency": 4}, {"frequency": 2, "accumulate": 2}], ids=str)
def test_a_frequency_in_steps_counts_optimizer_steps_across_epochs(options):
    accumulate = options.pop("accumulate", 1)
    recorder = Recorder()
    task = make_task(schedule=Schedule(StepLR, "step", step_size=1, gamma=0.5, **options))
    fit(task, max_epochs=2, accumulate_grad_batches=accumulate, callbacks=[recorder])
    num_steps = [k // accumulate for k in range(2 * NUM_BATCHES)]
    assert [lr for lr, _ in recorder.rates] == [0.3 * 0.5 ** (k // options["frequency"]) for k in num_steps]


@pytest.mark.parametrize("warmup_steps", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_one_cycle_ends_with_the_run_whatever_accumulates(accumulate, warmup_steps):
    schedule = Schedule(
        OneCycleLR, "step", run_length_as="total_steps", warmup_steps=warmup_steps, max_lr=0.5, cycle_momentum=False
    )
    recorder = Recorder()
    fit(make_task(schedule=schedule), accumulate_grad_batches=accumulate, callbacks=[recorder])
    assert recorder.rates[-1][0] == pytest.approx(0.5 / 25 / 1e4)
    assert max(recorder.rates)[0] > 0.2


def test_max_steps_bounds_the_length_of_the_run():
    schedule = Schedule(OneCycleLR, "step", run_length_as="total_steps", max_lr=0.5, cycle_momentum=False)
    recorder = Recorder()
    fit(make_task(schedule=schedule), max_epochs=10, max_steps=9, callbacks=[recorder])
    assert len(recorder.rates) == 9
    assert recorder.rates[-1][0] == pytest.approx(0.5 / 25 / 1e4)


def test_a_run_may_be_limited_by_max_steps_alone():
    recorder = Recorder()
    fit(make_task(), max_epochs=-1, max_steps=9, callbacks=[recorder])
    assert len(recorder.rates) == 9


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize("log_every_n_steps", [1, 4, 50])
@pytest.mark.parametrize("name", ["per epoch", "plateau per batch"])
def test_logged_losses_are_the_means_over_all_samples(name, log_every_n_steps):
    schedule, scheduler = SCHEDULES[name]
    memory = Memory()
    fit(make_task(schedule=schedule), logger=memory, log_every_n_steps=log_every_n_steps)
    plain = Plain(MOMENTUM, scheduler, schedule.interval)
    last_steps = [NUM_BATCHES * (epoch + 1) - 1 for epoch in range(EPOCHS)]
    for key, expected in (("train_loss", plain.train_losses), ("val_loss", plain.val_losses)):
        steps, values = zip(*memory.curve(key), strict=True)
        assert list(steps) == last_steps
        assert values == pytest.approx(expected, rel=1e-6)
    logged = [k for k in range(EPOCHS * NUM_BATCHES) if k % NUM_BATCHES % log_every_n_steps == 0]
    steps, values = zip(*memory.curve("train_loss_step"), strict=True)
    assert list(steps) == logged
    assert values == pytest.approx([plain.batch_losses[k] for k in logged], rel=1e-6)


def test_one_loss_that_is_nan_makes_the_mean_nan():
    task = make_task()
    for part in (task.train_loss, task.val_scores["val_loss"]):
        part.update(torch.tensor(1.0), weight=8)
        part.update(torch.tensor(float("nan")), weight=8)
        assert part.compute().isnan()


def test_what_is_logged_is_what_metric_keys_says():
    memory = Memory()
    task = make_task()
    trainer = fit(task, logger=memory, max_epochs=1)
    trainer.test(task, datamodule=make_data(), verbose=False)
    keys = {key for _, metrics in memory.points for key in metrics} - {"epoch", "train_loss_step"}
    assert keys == {key for stage in ("train", "val", "test") for key in task.metric_keys(stage)}
    assert keys == {"train_loss", "val_loss", "val_acc", "test_loss", "test_acc"}


LOSSES = [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), nn.MultiMarginLoss()]


@pytest.mark.parametrize("eval_batch_size", [1, 7, 1000])
@pytest.mark.parametrize("loss", LOSSES, ids=["cross_entropy", "label_smoothing", "multi_margin"])
def test_classification_metrics_are_those_of_the_whole_set(loss, eval_batch_size):
    task, data = make_task(loss=loss), make_data(eval_batch_size=eval_batch_size)
    (val,) = make_trainer().validate(task, datamodule=data, verbose=False)
    (test,) = make_trainer().test(task, datamodule=data, verbose=False)
    for stage, metrics, part in (("val", val, data.val), ("test", test, data.test)):
        logits = direct(task, data, part)
        assert metrics == {
            f"{stage}_loss": pytest.approx(loss(logits, part.y).item(), rel=1e-6),
            f"{stage}_acc": pytest.approx((logits.argmax(1) == part.y).double().mean().item(), rel=1e-6),
        }


class Clear(nn.LogSoftmax):
    """What NLLLoss takes."""

    def __init__(self, model):
        super().__init__(1)
        self.model = model

    def forward(self, x):
        return super().forward(self.model(x))


WEIGHTS = torch.tensor([0.2, 3.0, 1.0])
WEIGHTED_LOSSES = {
    "weights": nn.CrossEntropyLoss(weight=WEIGHTS),
    "a weight of zero": nn.CrossEntropyLoss(weight=torch.tensor([0.0, 3.0, 1.0])),
    "an ignored class": nn.CrossEntropyLoss(ignore_index=2),
    "weights and an ignored class": nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=1),
    "all of it, smoothed": nn.CrossEntropyLoss(weight=WEIGHTS, ignore_index=0, label_smoothing=0.2),
    "log-likelihood": nn.NLLLoss(weight=WEIGHTS, ignore_index=0),
    "margins": nn.MultiMarginLoss(weight=WEIGHTS),
}


def make_weighted_task(name, **options):
    task = make_task(loss=WEIGHTED_LOSSES[name], dropout=0, **options)
    if name == "log-likelihood":
        task.model = Clear(task.model)
    return task


@pytest.mark.parametrize("eval_batch_size", [1, 7, 1000])
@pytest.mark.parametrize("name", WEIGHTED_LOSSES)
def test_a_weighted_loss_of_batches_is_that_of_the_whole_set(name, eval_batch_size):
    task, data = make_weighted_task(name), make_data(eval_batch_size=eval_batch_size)
    (val,) = make_trainer().validate(task, datamodule=data, verbose=False)
    (test,) = make_trainer().test(task, datamodule=data, verbose=False)
    (again,) = make_trainer().test(task, dataloaders=data.test_dataloader(), verbose=False)  # as evaluate.py does
    assert val["val_loss"] == pytest.approx(task.loss(direct(task, data, data.val), data.val.y).item(), rel=1e-5)
    assert test["test_loss"] == pytest.approx(task.loss(direct(task, data, data.test), data.test.y).item(), rel=1e-5)
    assert again == test


@pytest.mark.parametrize("batch_size", [1, 8, 43])
@pytest.mark.parametrize("name", WEIGHTED_LOSSES)
def test_a_weighted_train_loss_is_that_of_the_whole_part(name, batch_size):
    memory, data = Memory(), make_data(batch_size=batch_size)
    task = make_weighted_task(name, optimizer=partial(SGD, lr=0.0))
    fit(task, data, logger=memory, max_epochs=1)
    ((_, value),) = memory.curve("train_loss")
    assert value == pytest.approx(task.loss(direct(task, data, data.train), data.train.y).item(), rel=1e-5)


def test_a_batch_of_ignored_samples_teaches_nothing():
    data = make_data(batch_size=1)
    recorder = Recorder()
    fit(
        make_weighted_task("a weight of zero", optimizer=partial(SGD, lr=0.1)), data, max_epochs=1, callbacks=[recorder]
    )
    steps = zip(recorder.weights, recorder.weights[1:], data.train.y[1:], strict=False)
    assert all(torch.equal(before, after) == (y == 0) for before, after, y in steps)


@pytest.mark.parametrize("name", ["weights", "an ignored class", "all of it, smoothed"])
def test_the_processes_shares_of_a_weighted_loss_make_up_the_whole(name, monkeypatch):
    task, data = make_weighted_task(name), make_data()
    fit(task, data, max_epochs=1)
    y = data.train.y[:BATCH]
    parts = [y[:3], y[3:], y[:0]]  # of processes of which one has none
    sizes = [float(task._size(part)) for part in parts]
    monkeypatch.setattr(task.trainer.strategy, "reduce", lambda *args, **kwargs: torch.tensor(sizes).mean())
    logits = torch.randn(BATCH, 3)
    losses = [task.loss(logits[:3], y[:3]), task.loss(logits[3:], y[3:]), torch.tensor(0.0)]
    shared = [loss * task._share(0, size) for loss, size in zip(losses, sizes, strict=True)]
    assert float(sum(shared) / 3) == pytest.approx(task.loss(logits, y).item(), rel=1e-5)


def test_targets_that_the_loss_ignores_by_default_count_nowhere_in_data_of_any_kind():
    x, y = torch.randn(20, 5), torch.arange(20) % 3
    y[[0, 1, 2, 3, 11]] = -100
    batches = [(x[:4], y[:4]), (x[4:14], y[4:14]), (x[14:], y[14:])]
    task = make_task(metrics={}, dropout=0)
    (test,) = make_trainer().test(task, dataloaders=DataLoader(batches, batch_size=None), verbose=False)
    with torch.no_grad():
        assert test["test_loss"] == pytest.approx(task.loss(task.model.eval()(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_is_no_mean_is_refused(reduction):
    with pytest.raises(ValueError, match=f"loss.reduction must be mean, got {reduction}"):
        make_task(loss=nn.CrossEntropyLoss(reduction=reduction))


@pytest.mark.parametrize("eval_batch_size", [2, 7, 1000])
def test_regression_metrics_are_those_of_the_whole_set(eval_batch_size):
    task = make_task(loss=nn.MSELoss(), metrics={"mae": MeanAbsoluteError(), "r2": R2Score()})
    data = make_data(TinyRegression, eval_batch_size=eval_batch_size)
    (test,) = make_trainer().test(task, datamodule=data, verbose=False)
    estimate, y = direct(task, data, data.test), data.test.y
    r2 = 1 - (estimate - y).square().sum(0) / (y - y.mean(0)).square().sum(0)
    assert test["test_loss"] == pytest.approx((estimate - y).square().mean().item(), rel=1e-6)
    assert test["test_mae"] == pytest.approx((estimate - y).abs().mean().item(), rel=1e-6)
    assert test["test_r2"] == pytest.approx(r2.mean().item(), rel=1e-5)


@torch.no_grad()
def direct(task, data, part):
    return task.model.eval()(data.transform(part.x))


def test_the_loss_given_is_the_one_trained_on():
    loss = nn.CrossEntropyLoss(label_smoothing=0.3)
    recorder = Recorder()
    fit(make_task(loss=loss), callbacks=[recorder])
    assert_same(recorder, Plain(MOMENTUM, partial(StepLR, step_size=100), loss=loss))


def test_parameter_groups_reach_the_optimizer():
    task = make_task(partial(MOMENTUM, weight_decay=0.1), param_groups=[{"pattern": "output", "lr": 0.01}])
    trainer = fit(task, max_epochs=1)
    groups = {group["name"]: (group["lr"], group["weight_decay"]) for group in trainer.optimizers[0].param_groups}
    assert groups == {
        "decay": (0.3, 0.1),
        "no_decay": (0.3, 0.0),
        "output": (0.01, 0.1),
        "output no_decay": (0.01, 0.0),
    }
    assert len(fit(make_task(decay="all"), max_epochs=1).optimizers[0].param_groups) == 1


def test_a_bad_pattern_or_optimizer_fails_at_construction():
    with pytest.raises(ValueError, match="'hiden' matches no parameter"):
        make_task(param_groups=[{"pattern": "hiden", "lr": 0.01}])
    with pytest.raises(ValueError, match="momentum"):
        make_task(partial(SGD, lr=0.1, momentum=-1.0))


@pytest.mark.parametrize("name", SCHEDULES)
def test_configure_optimizers_gives_exactly_lightnings_dict(name):
    schedule, _ = SCHEDULES[name]
    task = make_task(schedule=schedule)
    fit(task, max_epochs=1)
    config = task.configure_optimizers()
    assert config.keys() == {"optimizer", "lr_scheduler"}
    scheduler = config["lr_scheduler"].pop("scheduler")
    assert scheduler.optimizer is config["optimizer"]
    assert config["lr_scheduler"] == {
        "interval": schedule.interval,
        "frequency": 1,
        "monitor": schedule.monitor,
        "name": "lr",
    } | ({"reduce_on_plateau": False} if schedule.monitor else {})  # the task steps it, before checkpoints are saved


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_checkpoint_is_saved_after_the_schedule_was_stepped_and_holds_plain_values(name, tmp_path):
    schedule, scheduler = SCHEDULES[name]
    saver = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    fit(make_task(schedule=schedule), callbacks=[saver], enable_checkpointing=True)
    plain = Plain(MOMENTUM, scheduler, schedule.interval, schedule.monitor)
    intervals = NUM_BATCHES if schedule.interval == "step" else 1
    for epoch, expected in enumerate(plain.scheduler_states):
        checkpoint = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        (state,) = checkpoint["lr_schedulers"]
        assert state["last_epoch"] == expected["last_epoch"] == (epoch + 1) * intervals
        assert state["_last_lr"] == [expected["_last_lr"][0]] * 2  # of both groups
        if "best" in expected:
            assert state["best"] == pytest.approx(expected["best"], rel=1e-6)
            assert state["num_bad_epochs"] == expected["num_bad_epochs"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("schedule", [*(ours for ours, _ in SCHEDULES.values()), WARM_UP], ids=[*SCHEDULES, "warm-up"])
def test_a_resumed_run_continues_to_the_same_bits(schedule, tmp_path):
    straight, resumed = Recorder(), Recorder()

    def run(recorder, folder, **options):
        saver = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
        task, data = make_task(schedule=schedule, dropout=0), make_data(shuffle=True)
        fit(task, data, callbacks=[recorder, saver], enable_checkpointing=True, **options)

    run(straight, tmp_path / "straight")
    run(resumed, tmp_path / "resumed", ckpt_path=tmp_path / "straight" / "epoch=1.ckpt")
    assert resumed.rates == straight.rates[2 * NUM_BATCHES :]
    assert torch.equal(torch.stack(resumed.weights), torch.stack(straight.weights[2 * NUM_BATCHES :]))


def test_training_needs_no_validation_set():
    memory = Memory()
    fit(make_task(), make_data(val_size=0), logger=memory)
    assert len(memory.curve("train_loss")) == EPOCHS
    assert not memory.curve("val_loss")


def test_forward_is_the_model():
    task = make_task(dropout=0)
    x = torch.randn(4, 5)
    assert isinstance(task, LightningModule)
    assert torch.equal(task(x), task.model(x))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, EPOCHS),
        ({"val_check_interval": 2}, EPOCHS),
        ({"check_val_every_n_epoch": 2}, EPOCHS // 2),
        ({"val_check_interval": 2 * NUM_BATCHES + 1, "check_val_every_n_epoch": None}, 2),
        ({"max_steps": 2 * NUM_BATCHES + 1}, 2),
        ({"max_steps": 2 * NUM_BATCHES + 4, "val_check_interval": 2}, 2),
        ({"limit_val_batches": 0}, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("monitor", ["val_loss", "train_loss"])
def test_a_plateau_per_epoch_takes_each_value_once(monitor, options, expected):
    plateau = Schedule(ReduceLROnPlateau, monitor=monitor, patience=0, factor=0.5, threshold=1.0)
    trainer = fit(make_task(schedule=plateau), **options)
    if monitor == "train_loss":
        expected = options.get("max_steps", EPOCHS * NUM_BATCHES) // NUM_BATCHES
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == expected
