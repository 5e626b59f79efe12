import io
from functools import partial
from math import ceil, cos, inf, pi

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from litmlp.models.mlp import MLP
from litmlp.optim import NORMALIZATIONS, Schedule, WarmUp, inverse_time, parameter_groups, smooth_step


class Net(nn.Module):
    """Every kind of parameter: of linear and normalisation layers, attention's fused bias, a bare one."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False))
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))


def names_by_group(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: [names[id(parameter)] for parameter in group["params"]] for group in groups}


def options(groups):
    return {group["name"]: {k: v for k, v in group.items() if k not in ("name", "params")} for group in groups}


@pytest.mark.parametrize("decay", ["weights", "all"])
@pytest.mark.parametrize("rules", [[], [{"pattern": "bias", "lr": 0.1}, {"pattern": "inner", "weight_decay": 0.2}]])
@pytest.mark.parametrize(
    "model", [Net(), MLP((3,), 2), nn.Linear(2, 2, bias=False)], ids=lambda model: type(model).__name__
)
def test_each_trainable_parameter_is_in_exactly_one_group(model, decay, rules):
    rules = [rule for rule in rules if any(rule["pattern"] in name for name, _ in model.named_parameters())]
    grouped = [id(parameter) for group in parameter_groups(model, decay, rules) for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_biases_and_normalisation_parameters_do_not_decay():
    model = Net()
    groups = parameter_groups(model)
    assert names_by_group(model, groups) == {
        "decay": [
            "scale",
            "inner.0.weight",
            "inner.2.weight",
            "attention.in_proj_weight",
            "attention.out_proj.weight",
        ],
        "no_decay": [
            "inner.0.bias",
            "inner.1.weight",
            "inner.1.bias",
            "attention.in_proj_bias",
            "attention.out_proj.bias",
            "norm.weight",
            "norm.bias",
        ],
    }
    assert options(groups) == {"decay": {}, "no_decay": {"weight_decay": 0.0}}


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4, affine=True),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.RMSNorm(4),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_normalisation_layer_is_exempt(norm):
    assert isinstance(norm, NORMALIZATIONS)
    assert [group["name"] for group in parameter_groups(norm)] == ["no_decay"]


def test_decay_all_makes_one_group():
    groups = parameter_groups(Net(), decay="all")
    assert options(groups) == {"decay": {}}


def test_a_network_without_biases_has_one_group():
    assert options(parameter_groups(nn.Linear(3, 2, bias=False))) == {"decay": {}}


def test_frozen_parameters_are_left_out():
    model = MLP((3,), 2, hidden=[4])
    model.hidden_0.requires_grad_(False)
    assert names_by_group(model, parameter_groups(model)) == {"decay": ["output.weight"], "no_decay": ["output.bias"]}


def test_a_shared_parameter_is_counted_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert names_by_group(model, parameter_groups(model)) == {"decay": ["0.weight"], "no_decay": ["0.bias", "1.bias"]}


def test_the_first_rule_that_matches_wins():
    model = MLP((3,), 2, hidden=[4, 4])
    rules = [{"pattern": "^hidden_1", "lr": 0.1}, {"pattern": "hidden", "lr": 0.2}]
    groups = parameter_groups(model, rules=rules)
    assert names_by_group(model, groups) == {
        "^hidden_1": ["hidden_1.weight"],
        "^hidden_1 no_decay": ["hidden_1.bias"],
        "hidden": ["hidden_0.weight"],
        "hidden no_decay": ["hidden_0.bias"],
        "decay": ["output.weight"],
        "no_decay": ["output.bias"],
    }
    assert options(groups) == {
        "^hidden_1": {"lr": 0.1},
        "^hidden_1 no_decay": {"lr": 0.1, "weight_decay": 0.0},
        "hidden": {"lr": 0.2},
        "hidden no_decay": {"lr": 0.2, "weight_decay": 0.0},
        "decay": {},
        "no_decay": {"weight_decay": 0.0},
    }


def test_a_rules_own_weight_decay_holds_for_biases_too():
    groups = parameter_groups(MLP((3,), 2, hidden=[]), rules=[{"pattern": "output", "weight_decay": 0.3}])
    assert options(groups) == {"output": {"weight_decay": 0.3}, "output no_decay": {"weight_decay": 0.3}}


def test_an_optimizer_takes_the_groups_and_decays_the_weights_alone():
    model = MLP((3,), 2, hidden=[4], init_bias="normal", init_std=1.0)
    optimizer = SGD(parameter_groups(model, rules=[{"pattern": "output", "lr": 0.5}]), lr=0.1, weight_decay=0.1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    factors = {"hidden_0.weight": 1 - 0.1 * 0.1, "hidden_0.bias": 1, "output.weight": 1 - 0.5 * 0.1, "output.bias": 1}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), factors[name] * before[name])


@pytest.mark.parametrize("patterns", [["hiden"], ["hidden", "hidden_0"]], ids=["matches nothing", "comes too late"])
def test_a_pattern_that_takes_nothing_is_answered_with_the_names(patterns):
    model = MLP((3,), 2, hidden=[4])
    model.output.bias.requires_grad_(False)
    with pytest.raises(ValueError, match=f"'{patterns[-1]}'.*hidden_0.weight, hidden_0.bias, output.weight$"):
        parameter_groups(model, rules=[{"pattern": pattern, "lr": 0.1} for pattern in patterns])


# Schedule


def sgd(lr=0.1, **options):
    return SGD([nn.Parameter(torch.zeros(1))], lr=lr, **options)


@pytest.mark.parametrize(
    "bad",
    [
        {"interval": "batch"},
        {"frequency": 0},
        {"frequency": 1.5},
        {"warmup_steps": -1},
        {"warmup_steps": 0.1},
        {"step_size": 0},
        {"T_max": 0},
        {"total_steps": 0},
        {"total_iters": -1},
        {"patience": -1},
        {"cooldown": -1},
        {"gamma": -0.5},
        {"min_lr": -1e-3},
    ],
    ids=str,
)
def test_a_bad_argument_of_a_schedule_is_named(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        Schedule(StepLR, **bad)


def test_a_schedule_gives_lightnings_dict():
    optimizer = sgd()
    schedule = Schedule(ReduceLROnPlateau, "epoch", 2, monitor="val_loss", name="rate", patience=3)
    config = schedule(optimizer, num_steps=100, steps_per_epoch=10)
    assert config.pop("scheduler").patience == 3
    assert config == {"interval": "epoch", "frequency": 2, "monitor": "val_loss", "name": "rate"}


def test_a_plateau_needs_a_monitor():
    with pytest.raises(ValueError, match="a plateau schedule needs a monitor"):
        Schedule(ReduceLROnPlateau)(sgd(), 100, 10)


def test_a_plateau_cannot_be_warmed_up():
    with pytest.raises(ValueError, match=r"warmup_steps=5: a plateau schedule cannot be warmed up; use 0"):
        Schedule(ReduceLROnPlateau, monitor="val_loss", warmup_steps=5)(sgd(), 100, 10)


@pytest.mark.parametrize(
    ("interval", "frequency", "expected"), [("step", 1, 95), ("step", 10, 10), ("epoch", 1, 10), ("epoch", 4, 3)]
)
def test_the_run_length_is_counted_in_what_the_scheduler_counts(interval, frequency, expected):
    schedule = Schedule(CosineAnnealingLR, interval, frequency, run_length_as="T_max")
    scheduler = schedule(sgd(), num_steps=95, steps_per_epoch=10)["scheduler"]
    assert getattr(scheduler, "scheduler", scheduler).T_max == expected  # within WarmUp where steps are skipped


def test_a_run_length_that_is_given_wins_and_one_of_none_does_not():
    explicit = Schedule(CosineAnnealingLR, run_length_as="T_max", T_max=7)
    assert explicit(sgd(), inf, 10)["scheduler"].T_max == 7
    empty = Schedule(CosineAnnealingLR, run_length_as="T_max", T_max=None)
    assert empty(sgd(), 100, 10)["scheduler"].T_max == 10


def test_a_run_without_end_has_no_length():
    with pytest.raises(ValueError, match=r"set trainer\.max_epochs or max_steps"):
        Schedule(CosineAnnealingLR, run_length_as="T_max")(sgd(), inf, 10)


def test_a_schedule_can_be_called_again():
    schedule = Schedule(CosineAnnealingLR, "step", run_length_as="T_max")
    assert [schedule(sgd(), n, 10)["scheduler"].T_max for n in (100, 30)] == [100, 30]


@pytest.mark.parametrize(
    ("interval", "monitor", "expected"),
    [("step", "train_loss", True), ("epoch", "train_loss", False), ("step", None, False)],
)
def test_the_monitor_is_read_each_step_only_by_a_plateau_per_step(interval, monitor, expected):
    assert Schedule(StepLR, interval, monitor=monitor).reads_each_step is expected


# WarmUp

TOTAL = 40


def halve_every_third(optimizer):
    return LambdaLR(optimizer, lambda step: 0.5 ** (step // 3))


SCHEDULERS = {
    "step": partial(StepLR, step_size=3, gamma=0.5),
    "exponential": partial(ExponentialLR, gamma=0.9),
    "cosine": partial(CosineAnnealingLR, T_max=TOTAL, eta_min=0.01),
    "one_cycle": partial(OneCycleLR, max_lr=0.5, total_steps=TOTAL, cycle_momentum=False),
    "polynomial": partial(PolynomialLR, total_iters=TOTAL, power=2.0),
    "lambda": halve_every_third,
    "inverse_time": partial(inverse_time, k=0.1),
    "smooth_step": smooth_step,
}

CLOSED_FORMS = {
    "step": lambda k: 0.1 * 0.5 ** (k // 3),
    "exponential": lambda k: 0.1 * 0.9**k,
    "cosine": lambda k: 0.01 + (0.1 - 0.01) * (1 + cos(pi * k / TOTAL)) / 2,
    "polynomial": lambda k: 0.1 * (1 - k / TOTAL) ** 2,
    "lambda": lambda k: 0.1 * 0.5 ** (k // 3),
    "inverse_time": lambda k: 0.1 / (1 + 0.1 * k),
    "smooth_step": lambda k: 0.1 * 0.5 ** ((1 + k) / 10),
}


def rates(optimizer, scheduler, num_steps):
    """The rate of each optimizer step."""
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def unwarmed(name, num_steps):
    optimizer = sgd()
    return rates(optimizer, SCHEDULERS[name](optimizer), num_steps)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_each_schedule_follows_its_closed_form(name):
    assert unwarmed(name, TOTAL) == pytest.approx([CLOSED_FORMS[name](k) for k in range(TOTAL)])


@pytest.mark.parametrize("steps_per_interval", [1, 7])
@pytest.mark.parametrize("num_warm", [1, 5, 10])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_warm_up_is_a_factor_on_any_schedule(name, num_warm, steps_per_interval):
    optimizer = sgd()
    warm_up = WarmUp(SCHEDULERS[name](optimizer), num_warm, steps_per_interval)
    seen = rates(optimizer, warm_up, TOTAL)
    own = unwarmed(name, TOTAL)
    expected = [min(1, (k + 1) / num_warm) * own[k // steps_per_interval] for k in range(TOTAL)]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert warm_up.get_last_lr() == [optimizer.param_groups[0]["lr"]]


def test_warm_up_keeps_the_rates_of_groups_apart():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = SGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 1.0}], lr=0.1)
    warm_up = WarmUp(StepLR(optimizer, 2, 0.5), num_steps=4)
    for k in range(8):
        expected = [min(1, (k + 1) / 4) * 0.5 ** (k // 2) * lr for lr in (0.1, 1.0)]
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected)
        optimizer.step()
        warm_up.step()


def reloaded(state):
    """Through a file, as a checkpoint goes."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("stopped_after", [2, 5, 14, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_warm_up_continues_exactly_from_its_state(name, stopped_after):
    optimizer = sgd()
    warm_up = WarmUp(SCHEDULERS[name](optimizer), 5, steps_per_interval=7)
    rates(optimizer, warm_up, stopped_after)
    states = reloaded(optimizer.state_dict()), reloaded(warm_up.state_dict())
    expected = rates(optimizer, warm_up, TOTAL - stopped_after)

    resumed = sgd()
    warm_up = WarmUp(SCHEDULERS[name](resumed), 5, steps_per_interval=7)
    resumed.load_state_dict(states[0])
    warm_up.load_state_dict(states[1])
    assert rates(resumed, warm_up, TOTAL - stopped_after) == expected


def test_a_warmed_up_schedule_is_stepped_each_step_and_steps_its_own_each_interval():
    optimizer = sgd()
    schedule = Schedule(StepLR, "epoch", frequency=2, warmup_steps=4, step_size=1, gamma=0.5)
    config = schedule(optimizer, num_steps=40, steps_per_epoch=5)
    assert (config["interval"], config["frequency"], config["monitor"]) == ("step", 1, None)
    expected = [min(1, (k + 1) / 4) * 0.1 * 0.5 ** (k // 10) for k in range(40)]
    assert rates(optimizer, config["scheduler"], 40) == pytest.approx(expected)


def test_a_warmed_up_one_cycle_lasts_the_run():
    for interval, num_intervals in (("step", 23), ("epoch", ceil(23 / 5))):
        optimizer = sgd()
        schedule = Schedule(
            OneCycleLR, interval, warmup_steps=2, run_length_as="total_steps", max_lr=0.5, cycle_momentum=False
        )
        scheduler = schedule(optimizer, num_steps=23, steps_per_epoch=5)["scheduler"]
        assert scheduler.scheduler.total_steps == num_intervals
        rates(optimizer, scheduler, 23)


@pytest.mark.parametrize("k", [0.0, 0.005, 2.0])
def test_inverse_time_is_the_notes_rule(k):
    optimizer = sgd(lr=0.1)
    seen = rates(optimizer, inverse_time(optimizer, k=k), 200)
    assert seen == pytest.approx([0.1 / (1 + k * t) for t in range(200)], rel=1e-12)


def test_smooth_step_is_the_notes_rule():
    optimizer = sgd(lr=0.1)
    seen = rates(optimizer, smooth_step(optimizer, factor=0.5, epochs=10), 200)
    assert seen == pytest.approx([0.1 * 0.5 ** ((1 + epoch) / 10) for epoch in range(200)], rel=1e-12)
