"""The multilayer perceptron."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import TypeVar

from torch import Tensor, nn

T = TypeVar("T")

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

INITIALIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
    "he_uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
    "he_normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "zeros": nn.init.zeros_,
}


class MLP(nn.Sequential):
    """Linear layers, with an activation and dropout after each hidden layer.

    Input (B, *sample_shape), output (B, num_outputs): logits, or estimates in a regression. The layers are called
    `hidden_0`, `hidden_1`, ..., `output`; use these names in patterns.

    Args:
        sample_shape: shape of one sample; it is flattened.
        num_outputs: number of classes, or of regression targets.
        hidden: units of each hidden layer; empty for a linear model.
        dropout: probability of dropping (not keeping) a hidden unit: one number, or one per hidden layer.
        input_dropout: the same for each input.
        output_dropout: the same for each output. The `mnist_dropout` of the notes has it; it rarely helps.
        activation: name of the activation after each hidden layer, a key of `ACTIVATIONS`.
        output_activation: the same after the output layer, or None.
        init: how weights start: `default` (torch's), `normal` for N(0, init_std), or a key of `INITIALIZERS`.
        init_std: standard deviation for `normal`.
        init_bias: how biases start: `default`, `normal` or `zeros`.

    Raises:
        ValueError: a size below 1, a probability outside [0, 1), or an unknown name.
    """

    def __init__(
        self,
        sample_shape: Sequence[int],
        num_outputs: int,
        hidden: Sequence[int] = (200, 200),
        dropout: float | Sequence[float] = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        activation: str = "relu",
        output_activation: str | None = None,
        init: str = "default",
        init_std: float = 0.01,
        init_bias: str = "default",
    ) -> None:
        for name, listed in (("hidden", hidden), ("sample_shape", sample_shape), ("num_outputs", [num_outputs])):
            if not isinstance(listed, Sequence) or any(not isinstance(size, int) or size < 1 for size in listed):
                raise ValueError(f"{name} must have sizes of at least 1, got {listed}")
        make_activation = _choose("activation", activation, ACTIVATIONS)
        dropouts = [dropout] * len(hidden) if isinstance(dropout, int | float) else list(dropout)
        if len(dropouts) != len(hidden):
            raise ValueError(f"dropout must be one number or one per hidden layer ({len(hidden)}), got {len(dropouts)}")
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        _add_dropout(layers, "input_dropout", "input_dropout", input_dropout)
        sizes = [prod(sample_shape), *hidden]
        for i, (num_in, num_out) in enumerate(pairwise(sizes)):
            layers[f"hidden_{i}"] = nn.Linear(num_in, num_out)
            layers[f"activation_{i}"] = make_activation()
            _add_dropout(layers, f"dropout_{i}", "dropout", dropouts[i])
        layers["output"] = nn.Linear(sizes[-1], num_outputs)
        _add_dropout(layers, "output_dropout", "output_dropout", output_dropout)
        if output_activation is not None:
            layers["output_activation"] = _choose("output_activation", output_activation, ACTIVATIONS)()

        normal = partial(nn.init.normal_, std=init_std)
        init_weight = _choose("init", init, {"default": None, "normal": normal, **INITIALIZERS})
        init_bias_ = _choose("init_bias", init_bias, {"default": None, "normal": normal, "zeros": nn.init.zeros_})
        if init_std < 0:
            raise ValueError(f"init_std must be at least 0, got {init_std}")
        for layer in layers.values():
            if isinstance(layer, nn.Linear):
                if init_weight is not None:
                    init_weight(layer.weight)
                if init_bias_ is not None:
                    init_bias_(layer.bias)
        super().__init__(layers)


def _add_dropout(layers: dict[str, nn.Module], layer: str, argument: str, p: float) -> None:
    if not 0 <= p < 1:
        raise ValueError(f"{argument} is the probability of being dropped, in [0, 1), got {p}")
    if p > 0:  # a layer that drops nothing would only cost time
        layers[layer] = nn.Dropout(p)


def _choose(argument: str, name: str, choices: Mapping[str, T]) -> T:
    if name not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(choices)}, got {name!r}")
    return choices[name]
