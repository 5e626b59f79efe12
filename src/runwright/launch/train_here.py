"""A job's training in this process: alone, or as one of the processes of its run."""

import os
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def train_here(cfg: DictConfig) -> float | None:
    """Train as Hydra's state says where and by which overrides; the monitored metric's best value."""
    from runwright.loop.pruning import pruning_of
    from runwright.training.train import train  # imports torch: seconds that --help and a typo need not wait for

    hydra = HydraConfig.get()
    overrides: Any = OmegaConf.to_container(hydra.overrides.task)  # a list of strings
    try:
        return train(cfg, Path(hydra.runtime.output_dir), overrides, pruning_of(hydra, cfg.monitor))
    except Exception as error:
        error.raised_at = time.time()  # type: ignore[attr-defined]  # before other processes can notice
        raise
    finally:
        if "RANK" in os.environ:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()  # gloo aborts the process where this is left to its end
