import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from litmlp.callbacks.weight_norm import WeightNorm, weight_norms
from litmlp.data.iris import Iris
from litmlp.models.mlp import MLP
from litmlp.optim import Schedule
from litmlp.tasks.supervised import SupervisedTask

NUM_BATCHES = 3  # of 50 irises


class Recorder(Callback):
    """The norms after each step, computed by themselves."""

    def __init__(self):
        self.norms = []

    def on_train_batch_end(self, trainer, task, *args):
        weights = [task.model.hidden_0.weight.detach(), task.model.output.weight.detach()]
        whole = torch.cat([weight.flatten() for weight in weights])
        self.norms.append([torch.linalg.norm(weight).item() for weight in (*weights, whole)])


TAGS = ["norm/hidden_0", "norm/output", "norm/all"]


def make_task(model=None):
    torch.manual_seed(0)
    model = model or MLP((4,), 3, hidden=[6])
    schedule = Schedule(StepLR, step_size=100)
    return SupervisedTask(model, nn.CrossEntropyLoss(), {}, lambda groups: SGD(groups, lr=0.1), schedule)


def fit(task, callbacks, logger=False, max_epochs=2, **options):
    options = {"log_every_n_steps": 1, **options}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=max_epochs, callbacks=callbacks, logger=logger, **quiet, **options
    )
    trainer.fit(task, datamodule=Iris(batch_size=50, val_size=0, test_size=0))
    return trainer


def curves(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith("norm/")
    }


def test_norms_are_those_of_torch_by_layer_and_all_together():
    model = MLP((4,), 3, hidden=[6, 5])
    weights = {name: layer.weight for name, layer in model.named_children() if isinstance(layer, nn.Linear)}
    norms = weight_norms(model)
    assert list(norms) == ["norm/hidden_0", "norm/hidden_1", "norm/output", "norm/all"]
    for name, weight in weights.items():
        assert norms[f"norm/{name}"] == pytest.approx(torch.linalg.norm(weight).item())
    whole = torch.cat([weight.flatten() for weight in weights.values()])
    assert norms["norm/all"] == pytest.approx(torch.linalg.norm(whole).item())


def test_biases_normalisation_and_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Conv1d(3, 2, 1), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    assert list(weight_norms(model)) == ["norm/0", "norm/2", "norm/all"]


def test_a_model_without_weights_has_no_norm():
    assert weight_norms(nn.BatchNorm1d(3)) == {}


def test_by_default_the_norms_arrive_at_the_last_step_of_each_epoch(tmp_path):
    recorder = Recorder()
    fit(make_task(), [recorder, WeightNorm()], TensorBoardLogger(tmp_path, name="", version=""))
    found = curves(tmp_path)
    assert sorted(found) == sorted(TAGS)
    for i, tag in enumerate(TAGS):
        steps, values = zip(*found[tag], strict=True)
        assert steps == (2, 5)
        assert values == pytest.approx([recorder.norms[step][i] for step in steps])


@pytest.mark.parametrize(
    ("every_n_steps", "expected"),
    [
        (2, {1, 2, 3, 5}),  # the last step of an epoch, 2 or 5, is always there
        (4, {2, 3, 5}),
        (100, {2, 5}),
    ],
)
def test_every_n_steps_the_norms_arrive_at_the_steps_they_follow(tmp_path, every_n_steps, expected):
    recorder = Recorder()
    fit(make_task(), [recorder, WeightNorm(every_n_steps)], TensorBoardLogger(tmp_path, name="", version=""))
    found = curves(tmp_path)
    for i, tag in enumerate(TAGS):
        assert {step for step, _ in found[tag]} == expected
        for step, value in found[tag]:
            assert value == pytest.approx(recorder.norms[step][i])


def test_no_step_is_logged_twice(tmp_path):
    fit(make_task(), [WeightNorm(1)], TensorBoardLogger(tmp_path, name="", version=""))
    assert [step for step, _ in curves(tmp_path)["norm/all"]] == [0, 1, 2, 3, 4, 5]


def test_every_n_steps_counts_optimizer_steps_where_batches_accumulate(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(make_task(), [WeightNorm(1)], logger, accumulate_grad_batches=2)  # of 3 batches: two steps an epoch
    assert {step for step, _ in curves(tmp_path)["norm/all"]} == {0, 1, 2, 3}
    assert len(curves(tmp_path)["norm/all"]) == 4


def test_without_a_logger_the_norms_are_metrics_of_the_run():
    recorder = Recorder()
    trainer = fit(make_task(), [recorder, WeightNorm(2)])
    assert [trainer.callback_metrics[tag].item() for tag in TAGS] == pytest.approx(recorder.norms[-1])


def test_a_task_of_another_kind_has_its_norms_logged(tmp_path):
    class Regression(LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def training_step(self, batch):
            return self.layer(batch.x).square().mean()

        def configure_optimizers(self):
            return SGD(self.parameters(), lr=0.1)

    fit(Regression(), [WeightNorm()], TensorBoardLogger(tmp_path, name="", version=""))
    assert sorted(curves(tmp_path)) == ["norm/all", "norm/layer"]


@pytest.mark.parametrize("every_n_steps", [0, -1, 2.5])
def test_a_bad_interval_is_named(every_n_steps):
    with pytest.raises(ValueError, match=r"^every_n_steps must be"):
        WeightNorm(every_n_steps)
