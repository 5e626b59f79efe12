"""The bound on the weights into each unit."""

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from litmlp.callbacks.max_norm import MaxNorm


class Fitting(LightningModule):
    """Two hidden layers and an output, trained on noise at a rate that makes weights grow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential()
        for name, sizes in (("hidden_0", (4, 8)), ("hidden_1", (8, 6)), ("output", (6, 2))):
            self.model.add_module(name, nn.Linear(*sizes))
        self.norms: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return -self.model(batch).abs().sum().log()  # the larger the weights, the better

    def on_train_batch_end(self, *args: object) -> None:  # after the callbacks' hook
        self.norms.append({name: layer.weight.detach().norm(dim=1) for name, layer in self.model.named_children()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(*callbacks: MaxNorm) -> Fitting:
    module = Fitting()
    batches = torch.randn(30, 16, 4, generator=torch.Generator().manual_seed(1))
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module


def test_after_no_update_does_a_hidden_unit_exceed_the_norm():
    free, bound = fit(), fit(MaxNorm(max_norm=1.5))
    assert max(norms["hidden_0"].max() for norms in free.norms) > 1.5
    c = 1.5 * (1 + 1e-6)  # float32 rounding
    for norms in bound.norms:
        assert norms["hidden_0"].max() <= c
        assert norms["hidden_1"].max() <= c
    assert bound.norms[-1]["output"].max() > 1.5  # the pattern leaves it free


def test_rows_below_the_norm_are_untouched_and_longer_ones_only_scaled():
    callback, module = MaxNorm(max_norm=1.0), Fitting()
    weight = module.model.hidden_0.weight
    with torch.no_grad():
        weight[0].mul_(0.5 / weight[0].norm())
        weight[1].mul_(7.0 / weight[1].norm())
    before = weight.detach().clone()
    callback.on_fit_start(None, module)
    callback.on_train_batch_end()
    below = before.norm(dim=1) <= 1.0
    assert below[0]
    assert torch.equal(weight[below], before[below])
    torch.testing.assert_close(weight[1], before[1] / 7.0)


def test_a_pattern_without_a_layer_names_those_there_are():
    with pytest.raises(
        ValueError, match=r"pattern 'conv' finds no linear layer; there are: model.hidden_0, model.hidd"
    ):
        fit(MaxNorm(pattern="conv"))


def test_a_norm_of_zero_is_refused():
    with pytest.raises(ValueError, match="max_norm must be above 0"):
        MaxNorm(max_norm=0.0)
