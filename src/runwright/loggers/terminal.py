"""The config and the results of a run: trees and tables on a terminal, plain lines elsewhere and in train.log."""

import logging
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich import get_console
from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from runwright.config.defaults import Differences
from runwright.config.errors import printable
from runwright.config.walk import all_leaves, as_typed
from runwright.sweeps.names import is_job

log = logging.getLogger(__name__)


class Handler(logging.StreamHandler):
    """On a terminal, prints a record's attribute `shown`, or its message, above the progress bar if there is one.

    When jobs run in parallel, each line begins with the job's number, as Hydra counts them.
    """

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if is_job() and "joblib" in HydraConfig.get().launcher._target_:
            text = indent(text, f"#{HydraConfig.get().job.num} ")
        return text

    def emit(self, record: logging.LogRecord) -> None:
        console = get_console()
        if not console.is_terminal:
            super().emit(record)
        else:
            text = Text(self.format(record), style="yellow" if record.levelno >= logging.WARNING else "")
            console.print(getattr(record, "shown", text), soft_wrap=True)


def print_config(cfg: DictConfig, differences: Differences) -> None:
    """Print what `print_config` asks for: differences from the defaults (not in jobs of a sweep), or all values."""
    what = cfg.get("print_config") or "none"
    if what == "full":
        tree = _tree(
            "configuration", {**{key: as_typed(value) for key, value in all_leaves(cfg).items()}, **differences}
        )
        log.info(OmegaConf.to_yaml(cfg, resolve=True).rstrip(), extra={"shown": tree})
    elif what == "changes" and differences and not is_job():
        lines = [f"  {key}: {old} -> {new}" for key, (old, new) in differences.items()]
        tree = _tree("differs from the defaults", differences)
        log.info("\n".join(["differs from the defaults:", *lines]), extra={"shown": tree})


def _tree(title: str, values: Mapping[str, str | tuple[str, str]]) -> Tree:
    """A tree by dotted keys; a pair is the default and the value that replaces it."""
    nodes = {"": Tree(Text(title, style="bold"), guide_style="dim")}

    def node(key: str) -> Tree:
        if key not in nodes:
            nodes[key] = node(key.rpartition(".")[0]).add(Text(printable(key.rpartition(".")[2])))
        return nodes[key]

    for key, value in values.items():
        label = node(key).label
        assert isinstance(label, Text)
        if isinstance(value, str):
            label.append(f": {printable(value)}")
        else:
            label.append(f": {printable(value[0])} -> ", style="dim").append(printable(value[1]), style="bold cyan")
    return nodes[""]


def print_summary(metrics: Mapping[str, Any], duration: str, last_validated: int | None, places: Sequence[str]) -> None:
    """Print the results of training and test; `last_validated` is the step of the validation metrics."""
    epochs = "1 epoch" if metrics["epochs"] == 1 else f"{metrics['epochs']} epochs"
    head = f"{epochs} in {duration}; {metrics['stopped']}"
    tested = "best checkpoint" if metrics["best_checkpoint"] else "last weights"
    lines, stages = [head], {"last epoch": _scores(metrics["fit"])}
    if last_validated is not None and last_validated < metrics["steps"]:
        old = {key: value for key, value in stages["last epoch"].items() if key.startswith("val_")}
        stages["last epoch"] = {key: value for key, value in stages["last epoch"].items() if key not in old}
        stages[f"last validation, after step {last_validated:,}"] = old
    stages[f"test of the {tested}"] = _scores(metrics["test"])
    table = Table.grid(padding=(0, 2))
    for title, scores in stages.items():
        if scores:
            lines += [title, *(f"  {key:<14}{value:.4f}" for key, value in scores.items())]
            table.add_row(Text(title, style="bold"))
            for key, value in scores.items():
                table.add_row(Text(f"  {printable(key)}"), Text(f"{value:.4f}", style="cyan"))
    shown = Group(Text(printable(head)), table, *(Text(printable(place)) for place in places))
    log.info("\n".join([*lines, *places]), extra={"shown": shown})


def _scores(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in sorted(metrics.items()) if not key.startswith("norm/")}
