"""Parameter groups, and what Lightning needs to know of a learning-rate schedule."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, isinf
from typing import Any, Literal

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,  # BatchNorm and InstanceNorm of any dimension
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def parameter_groups(
    model: nn.Module,
    decay: Literal["weights", "all"] = "weights",
    rules: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The model's trainable parameters as an optimizer's groups: each parameter in exactly one.

    Args:
        model: whose parameters are grouped; frozen ones are left out.
        decay: `weights` puts biases and the parameters of normalisation layers into a group of their own, with
            weight_decay 0; `all` decays them like the rest.
        rules: in order, `{"pattern": regex, **options}`. A parameter goes to the first rule whose pattern is found in
            its name (`hidden_0.weight`), with the rule's options (`lr`, `weight_decay`, ...) in place of the
            optimizer's.

    Returns:
        Groups with the keys `name`, `params`, and those options that differ from the optimizer's.

    Raises:
        ValueError: a pattern that matches no parameter, or only those that an earlier rule took.
    """
    groups: dict[str, dict[str, Any]] = {}
    exempt = set() if decay == "all" else {id(parameter) for parameter in _not_decayed(model)}
    patterns = [re.compile(rule["pattern"]) for rule in rules]
    matched: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rule = next((rules[i] for i, pattern in enumerate(patterns) if pattern.search(name)), {})
        options = {key: value for key, value in rule.items() if key != "pattern"}
        group_name = "no_decay" if id(parameter) in exempt else "decay"
        if rule:
            matched.add(rule["pattern"])
            group_name = rule["pattern"] if group_name == "decay" else f"{rule['pattern']} {group_name}"
        if id(parameter) in exempt:
            options.setdefault("weight_decay", 0.0)
        groups.setdefault(group_name, {"name": group_name, "params": [], **options})["params"].append(parameter)
    for rule in rules:
        if rule["pattern"] not in matched:
            names = ", ".join(name for name, parameter in model.named_parameters() if parameter.requires_grad)
            raise ValueError(f"pattern {rule['pattern']!r} takes no parameter; there are: {names}")
    return list(groups.values())


def _not_decayed(model: nn.Module) -> Iterable[nn.Parameter]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias") or isinstance(module, NORMALIZATIONS):
                yield parameter


class Schedule:
    """How the learning rate changes: a scheduler, and when Lightning is to step it.

    Args:
        factory: called with the optimizer and `options`, gives the scheduler.
        interval: whether the scheduler counts epochs or steps (optimizer updates).
        frequency: step it every that many intervals.
        monitor: key of the value that a plateau scheduler is given.
        name: first part of the tag under which the rate is logged, `<name>/<parameter group>`.
        run_length_as: name of the option that receives the number of intervals in the whole run, for schedulers that
            must know it; an explicit value in `options` wins.
        **options: the scheduler's own.
    """

    def __init__(
        self,
        factory: Callable[..., LRScheduler],
        interval: Literal["epoch", "step"] = "epoch",
        frequency: int = 1,
        monitor: str | None = None,
        name: str = "lr",
        run_length_as: str | None = None,
        **options: Any,
    ) -> None:
        if interval not in ("epoch", "step"):
            raise ValueError(f"interval must be epoch or step, got {interval!r}")
        if not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency must be a whole number of at least 1, got {frequency}")
        self.factory, self.options = factory, options
        self.interval, self.frequency, self.monitor, self.name = interval, frequency, monitor, name
        self.run_length_as = run_length_as

    @property
    def reads_each_step(self) -> bool:
        """Whether the monitored value is read after every step, so that it must be logged on every step."""
        return self.monitor is not None and self.interval == "step"

    def __call__(self, optimizer: Optimizer, num_steps: float, steps_per_epoch: int) -> LRSchedulerConfigType:
        """Lightning's `lr_scheduler` dict, for a run of `num_steps` (infinite where nothing ends it).

        Raises:
            ValueError: the schedule needs the run's length and the run has no end.
        """
        options = dict(self.options)
        if self.run_length_as is not None and options.get(self.run_length_as) is None:
            if isinf(num_steps):
                raise ValueError("this schedule needs a run of known length: set trainer.max_epochs or max_steps")
            num_intervals = ceil(num_steps / (steps_per_epoch if self.interval == "epoch" else 1))
            options[self.run_length_as] = ceil(num_intervals / self.frequency)
        scheduler = self.factory(optimizer, **options)
        if isinstance(scheduler, ReduceLROnPlateau) and self.monitor is None:
            raise ValueError("a plateau schedule needs a monitor: the key of the value that it watches")
        return {
            "scheduler": scheduler,
            "interval": self.interval,
            "frequency": self.frequency,
            "monitor": self.monitor,
            "name": self.name,
        }
