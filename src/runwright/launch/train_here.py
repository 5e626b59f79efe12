"""Train a job in this process, alone or as one of several."""

import os
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def train_here(cfg: DictConfig) -> float | None:
    """Train, with directory and overrides from Hydra's state; return the monitored metric's best value."""
    from runwright.loop.pruning import pruning_of
    from runwright.training.train import train  # not at the top: imports torch, which --help does not need

    hydra = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)  # a list of strings
    try:
        return train(cfg, Path(hydra.runtime.output_dir), overrides, pruning_of(hydra, cfg.monitor))
    except Exception as error:
        error.raised_at = time.time()  # type: ignore[attr-defined]  # the time of the cause; other processes fail after it
        raise
    finally:
        if "RANK" in os.environ:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()  # else gloo aborts the process at exit
