"""What is known of the keys and groups of conf/ beyond their YAML files: a row a key.

Ranges of our own constructors' arguments stand in those constructors; here are the ranges of what libraries accept and
then mishandle.
"""

import re
from dataclasses import dataclass
from math import inf

PARTS = ("data", "model", "task", "optimizer", "scheduler", "trainer")  # what every run is made of
COLLECTIONS = ("callbacks", "logger")  # sections of parts by name, any number of them
# Values beside the sections, all of which a run reads.
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
SETTINGS = ("data", "model", "task", "optimizer", "scheduler", "callbacks")  # sections that change a run's numbers
GLOBAL_GROUPS = ("experiment", "sweep", "debug")  # groups whose files set the keys of others
MACHINE = "local"  # the group of this machine's settings, whose file does the same
ONE_FOR_ALL = ("trainer", "callbacks", "scheduler")  # sections where no number stands for a list of them

# Choices of Hydra's plugins, which are there once an extra of pyproject.toml is installed.
EXTRAS = {
    "hydra/launcher=joblib": "sweep",
    "hydra/launcher=submitit_local": "slurm",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/launcher=ray": "ray",
}


@dataclass(frozen=True)
class Key:
    """What is known of one key, or of all keys below a section."""

    kinds: tuple[str, ...] = ()
    """Kinds of value that it takes beside the one its YAML shows; where that is null, all kinds that it takes."""
    has_no_others: bool = False
    """Whether `kinds` are all that it takes beside null, in a file too."""
    least: float | None = None
    """Of a number; whole numbers only, where this is an int."""
    most: float = 2**31
    choices: tuple[str, ...] = ()
    """All that it may be, as typed."""
    follows: str = ""
    """The key of train.yaml to whose value conf/ refers here."""
    is_length: bool = False
    """Whether it says when the run ends."""
    may_change: bool = False
    """Whether a resumed run may have another value: one that leaves what the run computes as it is."""
    is_setting: bool = False
    """Whether it changes a run's numbers, outside the sections of `SETTINGS`, all of which do."""
    repeats: str = ""
    """What runs that differ in nothing else are, such as seeds: they repeat each other."""
    in_run_names: bool = True
    """Whether the name of a run's directory tells it where it was typed."""
    in_differences: bool = True
    """Whether it is listed where it differs from the defaults."""
    is_path: bool = False
    """Whether it names a file or a folder, by whatever signs those have."""
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
COUNTED_LENGTHS = tuple(name for name in LENGTHS if KEYS[name].least is not None)  # those that a schedule can span
REPEATS = {name: key.repeats for name, key in KEYS.items() if key.repeats}

_PATTERNS = {name: re.compile(re.escape(name).replace(r"\*", r"[^.]+")) for name in KEYS}
_NOTHING = Key()


def key(name: str) -> Key:
    """The row of exactly this key."""
    return next((KEYS[row] for row, pattern in _PATTERNS.items() if pattern.fullmatch(name)), _NOTHING)


def may_change(name: str) -> bool:
    """Whether a resumed run may have another value of this key: by its own row, or that of a section around it."""
    parts = name.split(".")
    return any(key(".".join(parts[: i + 1])).may_change for i in range(len(parts)))
