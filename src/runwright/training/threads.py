"""The number of CPU threads that torch uses."""

import os
from functools import cache

import torch
from omegaconf import DictConfig
from torch import nn

from runwright.config.errors import InputError
from runwright.config.walk import as_typed

MIN_PARALLEL_FLOPS = 40e6
"""Floating-point operations per step above which several threads are faster than one. Below, a parallel region takes
a few microseconds, but waits a thousand times as long for a thread whose core another process is using."""


def set_num_threads(cfg: DictConfig, model: nn.Module, batch_size: int, recorded: object = None) -> None:
    """Set the number of threads that `cfg.num_threads` asks for, and write the number back to it.

    It depends on the configuration alone, because another number of threads sums in another order, to other last bits.

    Args:
        cfg: `num_threads` is a number or `auto`. `auto` follows OMP_NUM_THREADS if it is set; otherwise it is one
            thread for a small network and all cores for others.
        model: its weights are counted; a step takes about six operations per weight and sample.
        batch_size: of the global batch.
        recorded: `num_threads` of the run that is resumed; `auto` keeps it.

    Raises:
        InputError: neither `auto` nor a number of at least 1.
    """
    num_threads, all_threads = cfg.get("num_threads", "auto"), _all_threads()
    if num_threads == "auto":
        num_weights = sum(weight.numel() for weight in model.parameters())
        if isinstance(recorded, int):
            num_threads = recorded
        elif "OMP_NUM_THREADS" not in os.environ and 6 * num_weights * batch_size < MIN_PARALLEL_FLOPS:
            num_threads = 1
        else:
            num_threads = all_threads
    if not isinstance(num_threads, int) or isinstance(num_threads, bool) or num_threads < 1:
        raise InputError(f"num_threads={as_typed(num_threads)}: must be auto, or a whole number of at least 1")
    torch.set_num_threads(num_threads)
    cfg.num_threads = num_threads


@cache  # first called before any job of this process has set another number
def _all_threads() -> int:
    return torch.get_num_threads()
