"""Parameter groups and learning-rate schedules."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, isinf
from typing import Any, Literal

from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

NORMALIZATIONS = (
    nn.modules.batchnorm._NormBase,  # BatchNorm and InstanceNorm of any dimension
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def parameter_groups(
    model: nn.Module,
    decay: Literal["weights", "all"] = "weights",
    rules: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Sort the model's trainable parameters into groups for an optimizer, each parameter into exactly one.

    Args:
        model: its parameters are grouped, except frozen ones.
        decay: `weights` puts biases and the parameters of normalisation layers into a group of their own, with
            weight_decay 0; `all` decays them like the rest.
        rules: `{"pattern": regex, **options}`. The first rule with a pattern that matches part of a parameter's name
            (`hidden_0.weight`) applies; its options (`lr`, `weight_decay`, ...) replace the optimizer's.

    Returns:
        Groups with the keys `name`, `params`, and the options that differ from the optimizer's.

    Raises:
        ValueError: a rule has no pattern, a negative rate, or a pattern that matches no parameter not already matched
            by an earlier rule.
    """
    if decay not in ("weights", "all"):
        raise ValueError(f"decay must be weights or all, got {decay!r}")
    for rule in rules:
        if not isinstance(rule, Mapping) or not isinstance(rule.get("pattern"), str):
            raise ValueError(f"param_groups: each rule needs a pattern, got {rule}")
        if any(rule.get(option, 0) < 0 for option in ("lr", "weight_decay")):
            raise ValueError(f"param_groups: lr and weight_decay must be at least 0, got {rule}")
        try:
            re.compile(rule["pattern"])
        except re.error as error:
            raise ValueError(
                f"param_groups: pattern {rule['pattern']!r} is not a regular expression: {error}"
            ) from error
    groups: dict[str, dict[str, Any]] = {}
    exempt = set() if decay == "all" else {id(parameter) for parameter in _not_decayed(model)}
    patterns = [re.compile(rule["pattern"]) for rule in rules]
    matched: set[int] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        index = next((i for i, pattern in enumerate(patterns) if pattern.search(name)), None)
        rule = {} if index is None else rules[index]
        options = {key: value for key, value in rule.items() if key != "pattern"}
        group_name = "no_decay" if id(parameter) in exempt else "decay"
        if index is not None:
            matched.add(index)
            group_name = rule["pattern"] if group_name == "decay" else f"{rule['pattern']} {group_name}"
        if id(parameter) in exempt:
            options.setdefault("weight_decay", 0.0)
        groups.setdefault(group_name, {"name": group_name, "params": [], **options})["params"].append(parameter)
    for i, rule in enumerate(rules):
        if i not in matched:
            names = ", ".join(name for name, parameter in model.named_parameters() if parameter.requires_grad)
            raise ValueError(f"pattern {rule['pattern']!r} matches no parameter that is left; there are: {names}")
    return list(groups.values())


def describe(optimizer: Optimizer) -> str:
    """The parameter groups as a small table: their sizes, and their most important options."""
    options = [key for key in ("lr", "weight_decay", "momentum") if key in optimizer.param_groups[0]]
    lines = [["group", "tensors", "weights", *options]]
    for group in optimizer.param_groups:
        num_weights = sum(parameter.numel() for parameter in group["params"])
        values = [f"{group[key]:g}" for key in options]
        lines.append([group["name"], str(len(group["params"])), f"{num_weights:,}", *values])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(cell.rjust(width + 2) for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def _not_decayed(model: nn.Module) -> Iterable[nn.Parameter]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("bias") or isinstance(module, NORMALIZATIONS):
                yield parameter


class Schedule:
    """A learning-rate scheduler, and when Lightning steps it.

    Args:
        factory: called with the optimizer and `options`; returns the scheduler.
        interval: whether the scheduler counts epochs or steps (optimizer updates).
        frequency: step it every this many intervals.
        monitor: key of the value that a plateau scheduler watches.
        name: first part of the tag of the logged rate, `<name>/<parameter group>`.
        warmup_steps: number of steps over which the rate rises linearly to the scheduler's; see `WarmUp`.
        run_length_as: name of the option that is set to the number of intervals in the whole run, for schedulers that
            need it; an explicit value in `options` takes precedence.
        **options: for the scheduler.

    Raises:
        ValueError: a value is out of range.
    """

    # Limits that torch's schedulers do not check.
    WHOLE = {"step_size": 1, "T_max": 1, "total_steps": 1, "total_iters": 1, "patience": 0, "cooldown": 0}
    NOT_NEGATIVE = ("gamma", "min_lr", "max_lr", "eta_min", "power", "k")

    def __init__(
        self,
        factory: Callable[..., LRScheduler],
        interval: Literal["epoch", "step"] = "epoch",
        frequency: int = 1,
        monitor: str | None = None,
        name: str = "lr",
        warmup_steps: int = 0,
        run_length_as: str | None = None,
        **options: Any,
    ) -> None:
        if interval not in ("epoch", "step"):
            raise ValueError(f"interval must be epoch or step, got {interval!r}")
        if not isinstance(frequency, int) or frequency < 1:
            raise ValueError(f"frequency must be a whole number of at least 1, got {frequency}")
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise ValueError(f"warmup_steps must be a whole number of at least 0, got {warmup_steps}")
        for option, value in options.items():
            least = self.WHOLE.get(option)
            if least is not None and value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"{option} must be a whole number of at least {least}, got {value}")
            if option in self.NOT_NEGATIVE and isinstance(value, int | float) and value < 0:
                raise ValueError(f"{option} must be at least 0, got {value}")
        self.factory, self.options = factory, options
        self.interval, self.frequency, self.monitor, self.name = interval, frequency, monitor, name
        self.warmup_steps, self.run_length_as = warmup_steps, run_length_as

    @property
    def reads_each_step(self) -> bool:
        """Whether the monitored value is read, and so must be logged, after every step."""
        return self.monitor is not None and self.interval == "step"

    def __call__(self, optimizer: Optimizer, num_steps: float, steps_per_epoch: int) -> LRSchedulerConfigType:
        """Lightning's `lr_scheduler` dict, for a run of `num_steps` (infinite if it has no limit).

        Raises:
            ValueError: the schedule needs a run of known length, needs a monitor, or cannot be warmed up.
        """
        options = dict(self.options)
        steps_per_interval = self.frequency * (steps_per_epoch if self.interval == "epoch" else 1)
        if self.run_length_as is not None and options.get(self.run_length_as) is None:
            if isinf(num_steps):
                raise ValueError("this schedule needs a run of known length: set trainer.max_epochs or max_steps")
            options[self.run_length_as] = ceil(num_steps / steps_per_interval)
        scheduler = self.factory(optimizer, **options)
        is_plateau = isinstance(scheduler, ReduceLROnPlateau)
        if is_plateau and self.monitor is None:
            raise ValueError("a plateau schedule needs a monitor: the key of the value to watch")
        config: LRSchedulerConfigType = {
            "scheduler": scheduler,
            "interval": self.interval,
            "frequency": self.frequency,
            "monitor": self.monitor,
            "name": self.name,
        }
        if self.warmup_steps and is_plateau:
            raise ValueError(f"warmup_steps={self.warmup_steps}: a plateau schedule cannot be warmed up; use 0")
        # Lightning restarts its count of steps in each epoch, so it cannot step every `frequency` steps of a run.
        if self.warmup_steps or (self.interval == "step" and self.frequency > 1 and not is_plateau):
            warm_up = WarmUp(scheduler, max(1, self.warmup_steps), steps_per_interval)
            config |= {"scheduler": warm_up, "interval": "step", "frequency": 1}
        return config


class WarmUp(LRScheduler):
    """Multiplies another schedule's rate by min(1, (step + 1) / num_steps).

    It is stepped once per optimizer step. Every `steps_per_interval` steps it steps the other schedule, with that
    schedule's own unscaled rates. So it works with any schedule that needs no monitored value.
    """

    def __init__(self, scheduler: LRScheduler, num_steps: int, steps_per_interval: int = 1) -> None:
        self.scheduler, self.num_steps, self.steps_per_interval = scheduler, num_steps, steps_per_interval
        self.unscaled = [group["lr"] for group in scheduler.optimizer.param_groups]
        super().__init__(scheduler.optimizer)  # takes the first step, to step 0

    def step(self, epoch: int | None = None) -> None:
        self.last_epoch += 1
        if self.last_epoch and self.last_epoch % self.steps_per_interval == 0:
            self._set(self.unscaled)
            self.scheduler.step()
            self.unscaled = [group["lr"] for group in self.optimizer.param_groups]
        factor = min(1.0, (self.last_epoch + 1) / self.num_steps)
        self._set([factor * lr for lr in self.unscaled])

    def _set(self, rates: list[float | Tensor]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = rates

    def state_dict(self) -> dict[str, Any]:
        return {
            "last_epoch": self.last_epoch,
            "unscaled": self.unscaled,
            "_last_lr": self._last_lr,
            "scheduler": self.scheduler.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.scheduler.load_state_dict(state.pop("scheduler"))
        self.__dict__.update(state)


def one_cycle(optimizer: Optimizer, total_steps: int, pct_start: float = 0.3, **options: Any) -> LRScheduler:
    """torch's OneCycleLR, with each parameter group's own rate as its peak."""
    if pct_start * total_steps == 1:  # the rise would have length 0, and torch divides by it
        pct_start *= 1 + 1e-9
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps, pct_start=pct_start, **options)


# Schedules that torch lacks. Each is a factor on the rate that depends on the step (or epoch, see `interval`) alone.


def inverse_time(optimizer: Optimizer, k: float) -> LRScheduler:
    """lr / (1 + k step): the 1/t decay of the notes, and Keras' old `decay`, which counts batches."""
    return LambdaLR(optimizer, lambda step: 1 / (1 + k * step))


def smooth_step(optimizer: Optimizer, factor: float = 0.5, epochs: float = 10.0) -> LRScheduler:
    """lr factor^((1 + epoch) / epochs): a smooth version of step decay, as written in the notes."""
    return LambdaLR(optimizer, lambda epoch: factor ** ((1 + epoch) / epochs))
