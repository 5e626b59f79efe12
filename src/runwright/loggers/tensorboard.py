"""What TensorBoard shows in addition to the curves: groups of charts, a summary, hyperparameters."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from runwright.config.defaults import Differences
from runwright.sweeps.names import is_job, varied


def log_layout(
    trainer: Trainer,
    metric_keys: Sequence[str],
    overrides: Sequence[str],
    differences: Differences,
    git: dict[str, Any] | None,
) -> None:
    """Write the charts of the CUSTOM SCALARS tab, and a summary to the TEXT tab."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars({"training": charts(metric_keys)})
            logger.experiment.add_text("run", run_summary(overrides, differences, git), 0)


def add_hyperparameters(logger: TensorBoardLogger, settings: Mapping[str, Any], metric_keys: Sequence[str]) -> None:
    """Write the HPARAMS tab: config groups by their choices; in a sweep, only the settings that it varies.

    TensorBoard shows the hyperparameters that the first run lists, five at once, and colours by the first metric.
    Metrics are only named: TensorBoard takes their last values from the curves, so this adds no points.
    """
    from torch.utils.tensorboard.summary import hparams

    listed, typed, metrics = dict(settings), {}, dict.fromkeys(metric_keys, 0.0)
    if HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
        listed |= {group: choice for group, choice in choices.items() if group in settings}
    if is_job():
        overrides = varied(HydraConfig.get().overrides.task, Path(HydraConfig.get().sweep.dir))
        typed = {key: value for key, _, value in (each.partition("=") for each in overrides)}
        listed = typed | listed
    experiment, _, _ = hparams({key: listed[key] for key in typed or listed}, metrics)
    _, session_start, session_end = hparams(listed, metrics)
    for summary in (experiment, session_start, session_end):
        logger.experiment.file_writer.add_summary(summary)


def charts(metric_keys: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Title -> kind of chart, and regexes of its curves: training and validation of a metric share a chart."""
    by_metric: dict[str, list[str]] = {}
    for key in metric_keys:
        by_metric.setdefault(key.partition("_")[2], []).append(f"^{key}$")
    by_metric |= {"learning rate": ["^lr/"], "norms of the weights": ["^norm/"]}
    return {title: ("Multiline", curves) for title, curves in by_metric.items()}


def run_summary(overrides: Sequence[str], differences: Differences, git: dict[str, Any] | None) -> str:
    """Markdown: the command, the commit, and the settings that differ from the defaults."""
    is_repeat = HydraConfig.initialized() and HydraConfig.get().job.config_name == "from"
    typed = [*(["from=RUN_DIR"] if is_repeat else []), *(each for each in overrides if not each.startswith("resume="))]
    lines = [f"    {shlex.join(['python', 'scripts/train.py', *typed])}", ""]
    if git is not None:
        lines += [f"commit {git['commit']}{', with changes since' if git['dirty'] else ''}", ""]
    if differences:
        rows = [["setting", "default", "this run"], ["---"] * 3]
        rows += [[key, old, new] for key, (old, new) in differences.items()]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
