"""What the engine knows about the keys and groups of conf/ beyond their YAML files: one row per key.

Our own constructors check the ranges of their arguments. The ranges here are for values that libraries accept and then
mishandle.
"""

import re
from dataclasses import dataclass
from math import inf

PARTS = ("data", "model", "task", "optimizer", "scheduler", "trainer")  # what every run is made of
COLLECTIONS = ("callbacks", "logger")  # sections that hold any number of named parts
# Top-level values. A run reads all of them.
VALUES = (
    "name",
    "seed",
    "monitor",
    "mode",
    "on_nonfinite",
    "print_config",
    "report",
    "test",
    "resume",
    "num_threads",
    "step_loop",
    "compile",
    "init_from",
)
SETTINGS = ("data", "model", "task", "optimizer", "scheduler", "callbacks")  # sections that change a run's results
GLOBAL_GROUPS = ("experiment", "sweep", "debug")  # groups whose files set keys of other groups
MACHINE = "local"  # the group of this machine's settings; its file also sets keys of other groups
ONE_FOR_ALL = ("trainer", "callbacks", "scheduler")  # sections where a list cannot replace a number

# Choices from Hydra plugins, each available once an extra of pyproject.toml is installed.
EXTRAS = {
    "hydra/launcher=joblib": "sweep",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/launcher=ray": "ray",
}


@dataclass(frozen=True)
class Key:
    """What the engine knows about one key, or about all keys below a section."""

    kinds: tuple[str, ...] = ()
    """Kinds of value that it takes besides that of its value in YAML; if that is null, all kinds."""
    has_no_others: bool = False
    """Whether it takes only `kinds` and null, in a file too."""
    least: float | None = None
    """The smallest number allowed; if this is an int, only whole numbers are."""
    most: float = 2**31
    """The largest number allowed."""
    choices: tuple[str, ...] = ()
    """All values allowed, as typed."""
    follows: str = ""
    """The key of train.yaml that conf/ refers to here."""
    is_length: bool = False
    """Whether it sets when the run ends."""
    may_change: bool = False
    """Whether a resumed run may change it, because it does not change what the run computes."""
    is_setting: bool = False
    """Whether it changes a run's results although it is outside of `SETTINGS`."""
    repeats: str = ""
    """Plural name, such as seeds, if runs that differ only in this key repeat each other."""
    in_run_names: bool = True
    """Whether the name of a run's directory includes it, if it was typed."""
    in_differences: bool = True
    """Whether it is listed if it differs from the defaults."""
    is_path: bool = False
    """Whether it names a file or a folder, which may contain any characters."""
    is_added: bool = False
    """Whether the run adds it: conf/ does not have it."""


# `*` stands for one name.
KEYS = {
    "name": Key(in_run_names=False, in_differences=False, is_path=True),
    "init_from": Key(is_path=True),
    "experiment": Key(in_run_names=False),
    "mode": Key(kinds=("a string",), choices=("min", "max"), in_differences=False),
    "seed": Key(kinds=("null",), least=0, most=2**32 - 1, repeats="seeds"),
    "report": Key(kinds=("a string",), choices=("true", "false", "each"), may_change=True, in_run_names=False),
    "print_config": Key(choices=("changes", "full", "none"), may_change=True, in_run_names=False),
    "resume": Key(in_run_names=False, in_differences=False),
    "num_threads": Key(kinds=("a number",), may_change=True, in_differences=False),
    "step_loop": Key(choices=("direct", "lightning"), may_change=True),
    "compile": Key(kinds=("a string",), has_no_others=True),
    "data.root": Key(may_change=True, in_run_names=False, is_path=True),
    "data.fold": Key(repeats="folds"),
    "data.seed": Key(follows="seed"),
    "data.normalize": Key(kinds=("a string", "a list")),
    "model.sample_shape": Key(in_differences=False, is_added=True),
    "model.num_outputs": Key(in_differences=False, is_added=True),
    "task.loss.label_smoothing": Key(least=0.0, most=1.0),
    "scheduler.monitor": Key(follows="monitor"),
    "scheduler.mode": Key(follows="mode"),
    "callbacks.*.monitor": Key(follows="monitor"),
    "callbacks.*.mode": Key(follows="mode"),
    "callbacks.*.action": Key(follows="on_nonfinite"),
    "callbacks.early_stopping.patience": Key(least=0),
    "callbacks.best_checkpoint.save_top_k": Key(least=-1),
    "callbacks.confusion": Key(may_change=True),
    "callbacks.histograms": Key(may_change=True),
    "callbacks.last_checkpoint": Key(may_change=True),
    "callbacks.model_summary": Key(may_change=True),
    "callbacks.progress_bar": Key(may_change=True),
    "logger": Key(may_change=True),
    "logger.mlflow.experiment_name": Key(follows="name"),
    "logger.wandb.project": Key(follows="name"),
    "trainer.max_epochs": Key(least=-1, is_length=True, may_change=True, is_setting=True),
    "trainer.max_steps": Key(least=-1, most=2**62, is_length=True, may_change=True, is_setting=True),
    "trainer.max_time": Key(kinds=("a string", "a mapping"), has_no_others=True, is_length=True, may_change=True),
    "trainer.precision": Key(kinds=("a number",), is_setting=True),
    "trainer.accumulate_grad_batches": Key(least=1, is_setting=True),
    "trainer.gradient_clip_val": Key(least=0.0, most=inf, is_setting=True),
    "trainer.check_val_every_n_epoch": Key(least=1),
    "trainer.limit_train_batches": Key(least=1e-9, most=inf),
    "trainer.limit_val_batches": Key(least=0.0, most=inf),
    "trainer.limit_test_batches": Key(least=0.0, most=inf),
    "trainer.log_every_n_steps": Key(least=1),
    "trainer.num_sanity_val_steps": Key(least=-1),
    "trainer.fast_dev_run": Key(kinds=("a number",), least=0),
    "trainer.accelerator": Key(may_change=True),
    "trainer.devices": Key(kinds=("a string", "a list"), may_change=True),
    "trainer.num_nodes": Key(least=1, may_change=True),
    "trainer.strategy": Key(may_change=True),
    "trainer.deterministic": Key(kinds=("a string",)),
    "trainer.detect_anomaly": Key(may_change=True),
    "trainer.enable_model_summary": Key(may_change=True),
    "trainer.profiler": Key(kinds=("a string", "a mapping"), has_no_others=True, may_change=True),
}

LENGTHS = tuple(name for name, key in KEYS.items() if key.is_length)
COUNTED_LENGTHS = tuple(name for name in LENGTHS if KEYS[name].least is not None)  # in epochs or steps, for schedules
REPEATS = {name: key.repeats for name, key in KEYS.items() if key.repeats}

_PATTERNS = {name: re.compile(re.escape(name).replace(r"\*", r"[^.]+")) for name in KEYS}
_NOTHING = Key()


def key(name: str) -> Key:
    """The row of this key, not of a section around it; an empty row if there is none."""
    return next((KEYS[row] for row, pattern in _PATTERNS.items() if pattern.fullmatch(name)), _NOTHING)


def may_change(name: str) -> bool:
    """Whether a resumed run may change this key, by its own row or that of a section around it."""
    parts = name.split(".")
    return any(key(".".join(parts[: i + 1])).may_change for i in range(len(parts)))
