from math import prod, sqrt

import pytest
import torch
from torch import nn

from litmlp.models.mlp import ACTIVATIONS, INITIALIZERS, MLP


def layers(model):
    return [type(layer) for layer in model]


def parameter_shapes(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def test_the_notes_mnist_dropout_network():
    model = MLP(
        (1, 28, 28),
        10,
        hidden=[200, 200],
        dropout=0.1,
        output_dropout=0.1,
        activation="leaky_relu",
        output_activation="leaky_relu",
    )
    after_linear = [nn.LeakyReLU, nn.Dropout]
    output = [nn.Linear, nn.Dropout, nn.LeakyReLU]
    assert layers(model) == [nn.Flatten, nn.Linear, *after_linear, nn.Linear, *after_linear, *output]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.1, 0.1, 0.1]
    assert parameter_shapes(model) == {
        "hidden_0.weight": (200, 784),
        "hidden_0.bias": (200,),
        "hidden_1.weight": (200, 200),
        "hidden_1.bias": (200,),
        "output.weight": (10, 200),
        "output.bias": (10,),
    }


def test_the_notes_fashion_dropout_network():
    model = MLP((1, 28, 28), 10, hidden=[256, 256], dropout=[0.2, 0.5], init="normal", init_std=0.01)
    hidden = [nn.Linear, nn.ReLU, nn.Dropout]
    assert layers(model) == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert [layer.p for layer in model if isinstance(layer, nn.Dropout)] == [0.2, 0.5]
    assert [shape for shape in parameter_shapes(model).values() if len(shape) == 2] == [
        (256, 784),
        (256, 256),
        (10, 256),
    ]


def test_layers_have_the_names_that_patterns_use():
    names = [name for name, _ in MLP((3,), 2, hidden=[4], dropout=0.5, input_dropout=0.5).named_children()]
    assert names == ["flatten", "input_dropout", "hidden_0", "activation_0", "dropout_0", "output"]


def test_no_hidden_layer_is_a_linear_model():
    model = MLP((2, 3), 4, hidden=[])
    x = torch.randn(5, 2, 3)
    assert torch.equal(model(x), x.flatten(1) @ model.output.weight.T + model.output.bias)


@pytest.mark.parametrize("sample_shape", [(7,), (1, 8, 8), (2, 3, 4, 5)])
def test_any_sample_shape_is_flattened(sample_shape):
    model = MLP(sample_shape, 3, hidden=[5])
    assert model.hidden_0.in_features == prod(sample_shape)
    assert model(torch.zeros(2, *sample_shape)).shape == (2, 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_activation_name_gives_its_module(activation):
    model = MLP((3,), 2, hidden=[4], activation=activation, output_activation=activation)
    expected = type(ACTIVATIONS[activation]())
    assert type(model.activation_0) is expected
    assert type(model.output_activation) is expected


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("where", ["dropout", "input_dropout", "output_dropout"])
def test_p_is_the_share_that_is_dropped_and_the_expectation_is_kept(p, where):
    torch.manual_seed(0)
    model = MLP((8,), 4, hidden=[16], **{where: p})
    name = {"dropout": "dropout_0"}.get(where, where)
    outputs = {}
    getattr(model, name).register_forward_hook(lambda _, inputs, output: outputs.update(given=inputs[0], got=output))
    model(torch.randn(20_000, 8))
    given, got = outputs["given"].detach(), outputs["got"].detach()
    alive = given != 0  # ReLU makes zeros of its own
    dropped = (got == 0) & alive
    num_alive = int(alive.sum())
    tolerance = 5 * sqrt(p * (1 - p) / num_alive)  # five standard deviations of a binomial's share
    assert dropped.sum() / num_alive == pytest.approx(p, abs=tolerance)
    kept = alive & ~dropped
    torch.testing.assert_close(got[kept], given[kept] / (1 - p))
    spread = sqrt(p / (1 - p)) * float(given.double().square().mean().sqrt()) / sqrt(given.numel())
    assert float(got.double().mean()) == pytest.approx(float(given.double().mean()), abs=5 * spread)


def test_evaluation_drops_nothing_and_repeats_itself():
    torch.manual_seed(0)
    model = MLP((8,), 4, hidden=[16], dropout=0.5, input_dropout=0.5, output_dropout=0.5)
    x = torch.randn(10, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    expected = model.output(torch.relu(model.hidden_0(x)))
    assert torch.equal(model(x), expected)
    assert torch.equal(model(x), model(x))


def test_dropout_zero_adds_no_layer():
    assert nn.Dropout not in layers(MLP((3,), 2, hidden=[4, 5], dropout=[0.0, 0]))


NUM_IN, NUM_OUT = 300, 500
STANDARD_DEVIATIONS = {
    "glorot_uniform": sqrt(2 / (NUM_IN + NUM_OUT)),
    "glorot_normal": sqrt(2 / (NUM_IN + NUM_OUT)),
    "he_uniform": sqrt(2 / NUM_IN),
    "he_normal": sqrt(2 / NUM_IN),
    "zeros": 0.0,
    "normal": 0.03,
}


def test_the_formula_of_each_initializer_is_tested():
    assert STANDARD_DEVIATIONS.keys() == {"normal", *INITIALIZERS}


@pytest.mark.parametrize(("init", "std"), STANDARD_DEVIATIONS.items())
def test_initial_weights_have_the_mean_and_standard_deviation_of_the_formula(init, std):
    torch.manual_seed(0)
    weight = MLP((NUM_IN,), 2, hidden=[NUM_OUT], init=init, init_std=0.03).hidden_0.weight.detach()
    n = weight.numel()
    assert float(weight.mean()) == pytest.approx(0, abs=5 * std / sqrt(n))
    assert float(weight.std()) == pytest.approx(std, rel=5 / sqrt(2 * n))
    if init.endswith("uniform"):
        bound = sqrt(3) * std
        assert 0.999 * bound < float(weight.abs().max()) <= bound
    if init.endswith("normal"):
        within = float((weight.abs() < std).float().mean())
        assert within == pytest.approx(0.6827, abs=0.006)  # five standard deviations


def test_every_linear_layer_is_initialized():
    model = MLP((4,), 2, hidden=[4, 4], init="zeros", init_bias="zeros")
    assert all(not parameter.any() for parameter in model.parameters())


def test_default_initialization_is_torchs():
    torch.manual_seed(0)
    model = MLP((6,), 3, hidden=[5])
    torch.manual_seed(0)
    expected = [nn.Linear(6, 5), nn.Linear(5, 3)]
    assert torch.equal(model.hidden_0.weight, expected[0].weight)
    assert torch.equal(model.output.bias, expected[1].bias)


def test_biases_start_by_their_own_rule():
    torch.manual_seed(0)
    biases = MLP((3,), 2, hidden=[20_000], init="zeros", init_bias="normal", init_std=1.0).hidden_0.bias
    assert biases.std().item() == pytest.approx(1, abs=5 / sqrt(2 * 20_000))


@pytest.mark.parametrize(
    "bad",
    [
        {"hidden": [0]},
        {"hidden": [4, -1]},
        {"hidden": [2.5]},
        {"dropout": -0.1},
        {"dropout": 1.0},
        {"dropout": [0.1]},
        {"dropout": [0.1, float("nan")]},
        {"input_dropout": 1.5},
        {"output_dropout": -1},
        {"activation": "rleu"},
        {"output_activation": "softmax"},
        {"init": "xavier"},
        {"init_bias": "glorot_uniform"},
        {"init_std": -0.01},
        {"num_outputs": 0},
        {"sample_shape": (0, 3)},
        {"hidden": [], "activation": "rleu"},
    ],
    ids=str,
)
def test_a_bad_argument_is_named(bad):
    arguments = {"sample_shape": (3,), "num_outputs": 2, "hidden": [4, 4], **bad}
    with pytest.raises(ValueError, match=f"^{list(bad)[-1]} "):
        MLP(**arguments)


@pytest.mark.parametrize("argument", ["activation", "output_activation", "init", "init_bias"])
def test_an_unknown_name_is_answered_with_the_choices(argument):
    with pytest.raises(ValueError, match=r"(relu|glorot_uniform|zeros).*'nonsense'"):
        MLP((3,), 2, **{argument: "nonsense"})
