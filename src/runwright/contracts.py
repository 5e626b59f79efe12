"""What the engine needs of data, of a task and of some callbacks: the whole of what a project owes it.

A class fulfils a contract by having these members. `class MyTask(LightningModule, Task)` also inherits what has a
default here, so that most tasks define `model` and `metric_keys` beside Lightning's methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

Stage = Literal["train", "val", "test"]
Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Prediction:
    """One thing that a task says of each sample of a batch.

    `name` is the array's in an .npz file. `values` is (N,), one column of a CSV called `name`, or (N, K), columns
    `column` and a number: p0, p1, ...
    """

    name: str
    values: Tensor
    column: str = ""


@runtime_checkable
class Data(Protocol):
    """A LightningDataModule. The first three are known before any data are read, for the model is built with them."""

    sample_shape: Sequence[int]
    """Of one sample."""
    num_outputs: int
    """Of the model, for one sample: classes, or targets of a regression."""
    batch_size: int
    """Of the global batch, all devices together."""

    class_names: Sequence[str] = ()
    """Of the classes, in their order; empty where their numbers are all there is."""
    feature_names: Sequence[str] = ()
    """Of the columns of a sample that is a row of a table, in their order; empty where they have none."""
    max_value: float = 1.0
    """The value of white in a sample that is an image."""

    @property
    def num_train_samples(self) -> int | None:
        """After `setup`; None where it is not known."""
        return None

    def preprocessing(self) -> nn.Module:
        """From samples as the files hold them, (B, *sample_shape), to the model's input; fitted, or loaded, by now."""
        return nn.Identity()


@runtime_checkable
class Task(Protocol):
    """A LightningModule; its constructor takes `model`, `optimizer` and `scheduler`, and what else conf/task/ says.

    `optimizer` is called with parameters or parameter groups. `scheduler` is called with the optimizer, the number of
    steps of the run and of an epoch, and returns what Lightning calls `lr_scheduler`.
    """

    model: nn.Module
    """What is exported, and whose weights `init_from` copies."""

    def metric_keys(self, stage: Stage) -> list[str]:
        """Keys of what is logged at the end of an epoch of that stage: what can be monitored or reported."""
        ...

    def mode_of(self, key: str) -> Mode | None:
        """Whether less or more of what is logged under one of the `metric_keys` is better; None: not known."""
        return "min" if key.endswith("loss") else None

    def check(self, data: Any) -> None:
        """Raise a ValueError where the task cannot be trained on these data, which have been set up.

        Its message begins with the argument of the task's constructor that is to blame: `loss: ...`.
        """

    def predictions(self, outputs: Tensor) -> list[Prediction]:
        """What the model's outputs for a batch say of each sample, for `scripts/predict.py`."""
        return [Prediction("outputs", outputs.flatten(1), "y")]

    @property
    def outputs_are(self) -> str:
        """What the model's outputs mean, for the model card of an export."""
        return "outputs of the model"

    def epoch_state(self) -> Mapping[str, Any]:
        """What the task has gathered of the epoch under way: tensors and plain values, for a resumed run."""
        return {}

    def load_epoch_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from these: this process's own, or those of all processes whose part it takes over."""


@runtime_checkable
class CheckedCallback(Protocol):
    """A Lightning callback that looks at the task before any data are read."""

    def check(self, task: Any) -> None:
        """Raise a ValueError where the callback cannot do its work on this task."""


@runtime_checkable
class StatefulLoader(Protocol):
    """A data loader that a resumed run can continue within an epoch."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class SharingLoader(Protocol):
    """A data loader that gives each of several processes its own part of every batch."""

    def share(self, batch_idx: int) -> slice:
        """This process's part of a global batch, counted in samples of the pass."""
        ...


if TYPE_CHECKING:  # what the engine has in hand: both at once, for which Python has no other type
    from lightning import LightningDataModule, LightningModule

    class LightningData(LightningDataModule, Data): ...

    class LightningTask(LightningModule, Task): ...
