"""The interfaces that a project's data, tasks and some callbacks must have for the engine.

A class fulfils a contract by having these members. `class MyTask(LightningModule, Task)` also inherits the defaults
given here, so most tasks only define `model` and `metric_keys` in addition to Lightning's methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

Stage = Literal["train", "val", "test"]
Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Prediction:
    """One output of a task for each sample of a batch.

    In an .npz file the array is called `name`. In a CSV, `values` of shape (N,) become one column called `name`, and
    (N, K) become K columns called `column` and a number: p0, p1, ...
    """

    name: str
    values: Tensor
    column: str = ""


@runtime_checkable
class Data(Protocol):
    """A LightningDataModule. The first three are known before any data are read: the model is built with them."""

    sample_shape: Sequence[int]
    """Shape of one sample."""
    num_outputs: int
    """Outputs of the model for one sample: number of classes, or of regression targets."""
    batch_size: int
    """Size of the global batch, all devices together."""

    class_names: Sequence[str] = ()
    """Names of the classes, in order; empty if they have only numbers."""
    feature_names: Sequence[str] = ()
    """Names of the columns, in order, if a sample is a row of a table; empty if they have none."""
    max_value: float = 1.0
    """The value of white, if a sample is an image."""

    @property
    def num_train_samples(self) -> int | None:
        """Available after `setup`; None if it is not known."""
        return None

    def preprocessing(self) -> nn.Module:
        """Module from stored samples, (B, *sample_shape), to the model's input; already fitted or loaded."""
        return nn.Identity()


@runtime_checkable
class Task(Protocol):
    """A LightningModule; its constructor takes `model`, `optimizer`, `scheduler` and the other arguments in conf/task/.

    `optimizer` is called with parameters or parameter groups. `scheduler` is called with the optimizer and the number
    of steps in the run and in an epoch, and returns what Lightning calls `lr_scheduler`.
    """

    model: nn.Module
    """The model that is exported; `init_from` copies its weights."""

    def metric_keys(self, stage: Stage) -> list[str]:
        """Keys of the metrics logged at the end of an epoch of that stage; these can be monitored or reported."""
        ...

    def mode_of(self, key: str) -> Mode | None:
        """Whether lower (min) or higher (max) is better for one of the `metric_keys`; None if not known."""
        return "min" if key.endswith("loss") else None

    def check(self, data: Any) -> None:
        """Raise a ValueError if the task cannot be trained on these data, which have been set up.

        The message begins with the argument of the task's constructor that is wrong: `loss: ...`.
        """

    def predictions(self, outputs: Tensor) -> list[Prediction]:
        """Predictions for each sample, from the model's outputs for a batch; used by `scripts/predict.py`."""
        return [Prediction("outputs", outputs.flatten(1), "y")]

    @property
    def outputs_are(self) -> str:
        """What the model's outputs mean, for the model card of an export."""
        return "outputs of the model"

    def epoch_state(self) -> Mapping[str, Any]:
        """What the task has accumulated in the current epoch, for a resumed run: tensors and plain values."""
        return {}

    def load_epoch_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from these states: this process's own, or those of all processes that it replaces."""


@runtime_checkable
class CheckedCallback(Protocol):
    """A Lightning callback that checks the task before any data are read."""

    def check(self, task: Any) -> None:
        """Raise a ValueError if the callback cannot work with this task."""


@runtime_checkable
class StatefulLoader(Protocol):
    """A data loader that a resumed run can continue within an epoch."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class SharingLoader(Protocol):
    """A data loader that gives each of several processes its own part of every batch."""

    def share(self, batch_idx: int) -> slice:
        """This process's part of a global batch, as positions in this epoch's order of samples."""
        ...


if TYPE_CHECKING:  # both types at once; Python has no intersection types
    from lightning import LightningDataModule, LightningModule

    class LightningData(LightningDataModule, Data): ...

    class LightningTask(LightningModule, Task): ...
