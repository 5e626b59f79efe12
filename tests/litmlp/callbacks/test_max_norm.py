import pytest
import torch
from lightning import Callback, Trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from litmlp.callbacks.max_norm import MaxNorm
from litmlp.data.iris import Iris
from litmlp.models.mlp import MLP
from litmlp.optim import Schedule
from litmlp.tasks.supervised import SupervisedTask


class Recorder(Callback):
    """Each layer's row norms after each step."""

    def __init__(self):
        self.norms = {"hidden_0": [], "hidden_1": [], "output": []}

    def on_train_batch_end(self, trainer, task, *args):
        for name, norms in self.norms.items():
            norms.append(task.model.get_submodule(name).weight.detach().norm(dim=1))


def fit(*callbacks, lr=0.5):
    torch.manual_seed(0)
    model = MLP((4,), 3, hidden=[6, 5], init="normal", init_std=1.0)
    schedule = Schedule(StepLR, step_size=100)
    task = SupervisedTask(model, nn.CrossEntropyLoss(), {}, lambda groups: SGD(groups, lr=lr), schedule)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", devices=1, max_epochs=2, callbacks=list(callbacks), logger=False, **quiet)
    trainer.fit(task, datamodule=Iris(batch_size=50, val_size=0, test_size=0))
    return model


def test_no_bound_row_is_longer_than_max_norm_after_any_step():
    recorder = Recorder()
    fit(MaxNorm(1.0), recorder)
    for name in ("hidden_0", "hidden_1"):
        norms = torch.stack(recorder.norms[name])
        assert norms.max().item() == pytest.approx(1.0, abs=1e-5)
        assert norms.max() <= 1 + 1e-6
    assert torch.stack(recorder.norms["output"]).max() > 1, "the output layer is free"


def test_the_pattern_chooses_the_layers():
    recorder = Recorder()
    fit(MaxNorm(1.0, pattern="output|hidden_1"), recorder)
    assert torch.stack(recorder.norms["output"]).max() <= 1 + 1e-6
    assert torch.stack(recorder.norms["hidden_1"]).max() <= 1 + 1e-6
    assert torch.stack(recorder.norms["hidden_0"]).max() > 1


def test_long_rows_keep_their_direction_and_short_rows_and_biases_stay():
    bound, free = fit(MaxNorm(1.0), lr=0.0), fit(lr=0.0)
    norms = free.hidden_0.weight.norm(dim=1, keepdim=True)
    assert norms.min() < 1 < norms.max()
    torch.testing.assert_close(bound.hidden_0.weight, free.hidden_0.weight / norms.clamp(min=1.0))
    assert torch.equal(bound.hidden_0.bias, free.hidden_0.bias)


def test_a_bound_never_reached_changes_nothing():
    bound, free = fit(MaxNorm(1e6)), fit()
    pairs = zip(bound.parameters(), free.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("max_norm", [0, -1.0])
def test_a_bad_bound_is_named(max_norm):
    with pytest.raises(ValueError, match=r"^max_norm must be"):
        MaxNorm(max_norm)


def test_a_pattern_that_finds_no_layer_is_answered_with_the_names():
    with pytest.raises(ValueError, match=r"'hiden'.*model\.hidden_0, model\.hidden_1, model\.output"):
        fit(MaxNorm(pattern="hiden"))
