"""How many CPU threads torch computes with."""

import os
from functools import cache

import torch
from omegaconf import DictConfig
from torch import nn

from runwright.config.errors import InputError
from runwright.config.walk import as_typed

PAYS_FROM = 40e6
"""Floating-point operations of a step from which several threads are faster than one. Below, a parallel region lasts
some microseconds; where another process has the core, it waits a thousand times as long for its other threads."""


def set_num_threads(cfg: DictConfig, model: nn.Module, batch_size: int, recorded: object = None) -> None:
    """Do as `num_threads` says, and leave in it the number that it comes to.

    It follows from the configuration alone, for other numbers of threads sum in another order, to other last bits.

    Args:
        cfg: `num_threads` is a number, or `auto`: what OMP_NUM_THREADS says; else one thread for a small network, all
            cores for others.
        model: whose weights are counted; a step takes about six operations for each weight and sample.
        batch_size: of the global batch.
        recorded: the same key of a run that is resumed, whose number `auto` keeps.

    Raises:
        InputError: something else than `auto` or a number of at least 1.
    """
    wanted, most = cfg.get("num_threads", "auto"), _all_threads()
    if wanted == "auto":
        num_weights = sum(weight.numel() for weight in model.parameters())
        if isinstance(recorded, int):
            wanted = recorded
        elif "OMP_NUM_THREADS" not in os.environ and 6 * num_weights * batch_size < PAYS_FROM:
            wanted = 1
        else:
            wanted = most
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise InputError(f"num_threads={as_typed(wanted)}: must be auto, or a whole number of at least 1")
    torch.set_num_threads(wanted)
    cfg.num_threads = wanted


@cache  # before a job of this process has set another number
def _all_threads() -> int:
    return torch.get_num_threads()
