"""Opens a run again from its directory alone: data module, model and task, and no other part of its config."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import SGD, Optimizer

from runwright.config.blame import error_context
from runwright.config.errors import InputError
from runwright.contracts import Data, Task
from runwright.loop.quiet import quiet_libraries
from runwright.rundir.checkpoint import find_checkpoint, read_weights
from runwright.rundir.files import CONFIG
from runwright.rundir.trust import check_objects, read_config
from runwright.training.build import check_contract, make

if TYPE_CHECKING:
    from runwright.contracts import LightningData, LightningTask


@dataclass(frozen=True)
class Reopened:
    """A run with the weights of one of its checkpoints.

    `network` includes normalisation: it maps raw x, (B, *sample_shape) as in the data set's files, to outputs.
    """

    cfg: DictConfig
    checkpoint: Path
    data: "LightningData"
    task: "LightningTask"
    network: nn.Module
    output_shape: tuple[int, ...]  # of one sample


def reopen(run_dir: Path, conf: Path, which: str = "best", overrides: Sequence[str] = ()) -> Reopened:
    """Build a run's data module and task, with the weights of its best or last checkpoint; no data are read.

    Args:
        run_dir: it may have been moved, or come from someone else.
        conf: the project's config folder; `trusted.yaml` there lists what may be built.
        which: `best` (the last, if no best was chosen) or `last`.
        overrides: `data.key=value`, to replace recorded values.

    Raises:
        InputError: a file is missing, damaged or not trusted, or a weight is not finite.
    """
    quiet_libraries()
    cfg = read_config(run_dir, conf)
    _override(cfg, overrides)
    check_objects(run_dir, cfg, conf)
    path = find_checkpoint(run_dir, which)
    checkpoint = read_weights(path)
    data, model = make(cfg, "data"), make(cfg, "model")
    stand_ins: dict[str, Any] = {"optimizer": _no_optimizer, "scheduler": _no_scheduler}
    if "param_groups" in cfg.task:  # their options are known to the run's own optimizer only
        stand_ins["param_groups"] = ()
    task = make(cfg, "task", model=model, **stand_ins)
    for part, kind in ((data, LightningDataModule), (model, nn.Module), (task, LightningModule)):
        if not isinstance(part, kind):
            raise InputError(f"{run_dir / CONFIG}: {type(part).__name__} is not a {kind.__name__}")
    check_contract("data", data, Data)
    check_contract("task", task, Task)
    try:
        task.load_state_dict(checkpoint["state_dict"])
        if type(data).state_dict is not LightningDataModule.state_dict:  # fitted state, such as normalisation
            data.load_state_dict(checkpoint[type(data).__qualname__])
        network = nn.Sequential(data.preprocessing(), model).eval()
        with torch.inference_mode():
            output_shape = tuple(network(torch.zeros(1, *data.sample_shape)).shape[1:])
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not the weights of this run's config.yaml: {reason}") from error
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise InputError(f"{path}: {name} holds NaN or infinity; its outputs would be meaningless")
    return Reopened(cfg, path, data, task.eval(), network, output_shape)


def evaluate(run: Reopened, download: bool = False) -> dict[str, float]:
    """The metrics on the test set. Its files must be present, unless `download`.

    Raises:
        InputError: a metric is not finite, or the data are missing.
    """
    with error_context(run.cfg, "data"):
        if download:
            run.data.prepare_data()
        run.data.setup("test")
    with error_context(run.cfg, "trainer"):
        trainer = Trainer(
            devices=1,
            precision=OmegaConf.select(run.cfg, "trainer.precision") or "32-true",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    (metrics,) = trainer.test(run.task, dataloaders=run.data.test_dataloader(), verbose=False)
    for name, value in metrics.items():
        if not isfinite(value):
            raise InputError(f"{run.checkpoint}: {name} is {value} on this test set")
    return dict(metrics)


def _override(cfg: DictConfig, overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.startswith("data.") or OmegaConf.select(cfg, key, default=cfg) is cfg:
            known = ", ".join(f"data.{key}" for key in cfg.data if not str(key).startswith("_"))
            raise InputError(f"{override}: only values of data can be set here: {known}")
    cfg.merge_with_dotlist(list(overrides))


def _no_optimizer(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.0)


def _no_scheduler(optimizer: Optimizer, num_steps: float, steps_per_epoch: int) -> Any:
    raise AssertionError("a reopened run is not trained")
