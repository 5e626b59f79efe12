"""Each file in conf/optimizer/ against the notes' formula, written out in float64 NumPy."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf" / "optimizer"
STEPS = 250
Array = np.ndarray

# minimise w A w / 2 - b w
_random = np.random.default_rng(0)
_root = _random.normal(size=(6, 6))
A, B = _root @ _root.T / 6 + np.eye(6), _random.normal(size=6)
START = _random.normal(size=6)


def gradient(w: Array) -> Array:
    return A @ w - B


def trained(optimizer: torch.optim.Optimizer, w: torch.nn.Parameter) -> list[Array]:
    """The weights after each step."""
    path = []
    for _ in range(STEPS):
        w.grad = torch.from_numpy(gradient(w.detach().numpy()))
        optimizer.step()
        path.append(w.detach().numpy().copy())
    return path


def by_torch(choice: str, **options: float) -> list[Array]:
    """The weights after each step of the optimizer that conf/optimizer/<choice>.yaml describes."""
    cfg = OmegaConf.load(CONF / f"{choice}.yaml")
    for default in cfg.pop("defaults", []):
        base = OmegaConf.load(CONF / f"{default}.yaml")
        for deeper in base.pop("defaults", []):
            base = OmegaConf.merge(OmegaConf.load(CONF / f"{deeper}.yaml"), base)
        cfg = OmegaConf.merge(base, cfg)
    w = torch.nn.Parameter(torch.tensor(START))
    return trained(instantiate(cfg, _convert_="all")([w], **options), w)


def sgd(lr: float = 0.1) -> Iterator[Array]:
    w = START
    while True:
        w = w - lr * gradient(w)
        yield w


def momentum(lr: float = 0.05, b: float = 0.9) -> Iterator[Array]:
    w, z = START, np.zeros_like(START)
    while True:
        z = b * z + gradient(w)
        w = w - lr * z
        yield w


def nesterov(lr: float = 0.05, b: float = 0.9) -> Iterator[Array]:
    w, z = START, np.zeros_like(START)
    while True:
        g = gradient(w)
        z = b * z + g
        w = w - lr * (g + b * z)
        yield w


def adagrad(lr: float = 0.05, eps: float = 1e-10) -> Iterator[Array]:
    w, c = START, np.zeros_like(START)
    while True:
        g = gradient(w)
        c = c + g**2
        w = w - lr * g / (np.sqrt(c) + eps)
        yield w


def rmsprop(lr: float = 0.001, r: float = 0.9, eps: float = 1e-8) -> Iterator[Array]:
    w, c = START, np.zeros_like(START)
    while True:
        g = gradient(w)
        c = r * c + (1 - r) * g**2
        w = w - lr * g / (np.sqrt(c) + eps)
        yield w


def adam(lr: float = 0.001, decay: float = 0.0, corrected: bool = True) -> Iterator[Array]:
    b1, b2, eps = 0.9, 0.999, 1e-8
    w, m, v, k = START, np.zeros_like(START), np.zeros_like(START), 0
    while True:
        k += 1
        g = gradient(w)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        c1, c2 = (1 - b1**k, 1 - b2**k) if corrected else (1, 1)
        w = w * (1 - lr * decay) - lr * (m / c1) / (np.sqrt(v / c2) + eps)
        yield w


@pytest.mark.parametrize(
    ("choice", "formula"),
    [
        ("sgd", sgd),
        ("sgd_momentum", momentum),
        ("nesterov", nesterov),
        ("adagrad", adagrad),
        ("rmsprop", rmsprop),
        ("adam", adam),
        ("adamw", lambda: adam(decay=0.01)),
    ],
)
def test_every_step_is_the_one_of_the_formula(choice: str, formula: Callable[[], Iterator[Array]]):
    for ours, theirs in zip(by_torch(choice), formula(), strict=False):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_momentum_zero_is_plain_sgd():
    np.testing.assert_array_equal(by_torch("sgd_momentum", momentum=0.0), by_torch("sgd", lr=0.05))


def test_the_first_step_of_adam_without_bias_correction_is_three_times_as_long():
    plain, corrected = next(adam(corrected=False)) - START, next(adam()) - START
    np.testing.assert_allclose(plain / corrected, (1 - 0.9) / np.sqrt(1 - 0.999), rtol=1e-5)  # eps
    gaps = [np.abs(a - b).max() for a, b, _ in zip(adam(corrected=False), adam(), range(STEPS), strict=False)]
    assert gaps[0] == pytest.approx(0.001 * 2.16, rel=0.01)
    assert max(gaps) > 10 * gaps[0]  # it adds up before it fades


def form_b(rates: list[float], m: float = 0.9) -> Array:
    """The notes' other momentum: v <- m v - a g; w <- w + v."""
    w, v = START, np.zeros_like(START)
    for a in rates:
        v = m * v - a * gradient(w)
        w = w + v
    return w


def form_a(rates: list[float], b: float = 0.9) -> Array:
    """What torch does, through its own optimizer."""
    w = torch.nn.Parameter(torch.tensor(START))
    optimizer = torch.optim.SGD([w], lr=rates[0], momentum=b)
    for a in rates:
        optimizer.param_groups[0]["lr"] = a
        w.grad = torch.from_numpy(gradient(w.detach().numpy()))
        optimizer.step()
    return w.detach().numpy()


def test_the_two_forms_of_momentum_agree_while_the_rate_is_constant_and_part_when_it_changes():
    constant = [0.01] * 50
    np.testing.assert_allclose(form_a(constant), form_b(constant), rtol=1e-10)
    falling = [0.01] * 25 + [0.001] * 25
    np.testing.assert_allclose(form_a(falling[:25]), form_b(falling[:25]), rtol=1e-10)
    assert np.abs(form_a(falling) - form_b(falling)).max() > 0.01


def test_weight_decay_of_sgd_adds_a_penalty_to_the_gradient():
    w = START
    for ours, _ in zip(by_torch("sgd", weight_decay=0.3), range(STEPS), strict=True):
        w = w - 0.1 * (gradient(w) + 0.3 * w)
        np.testing.assert_allclose(ours, w, rtol=1e-9)
