"""Rendezvous of the processes of one run: each gets the run's configuration from rank 0.

Rank 0 serves a store and puts the configuration there as JSON, so that every rank trains with the same one.
"""

import copy
import json
import logging
import os
import subprocess
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from logging.config import dictConfig
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError

from runwright.config.errors import InputError
from runwright.launch.train_here import train_here

if TYPE_CHECKING:
    from torch.distributed import Store

JOB = "runwright/job"  # key of the configuration in the store
PORT = "runwright/port"  # key of this store's port in torchrun's store


def train_other_rank(arguments: Sequence[str]) -> bool:
    """If torchrun or srun started this process as another rank than 0, do its part of the run.

    Returns:
        Whether this was such a process. Rank 0 is not: it starts through Hydra, which creates the run directory.
    """
    if not is_one_of_several():
        return False
    if {"-m", "--multirun"} & set(arguments):
        raise InputError(
            "--multirun: torchrun and srun start the processes of one run, and a sweep starts its own; "
            "leave them out and set trainer.devices"
        )
    if os.environ["RANK"] == "0":
        return False
    train_as_rank(meet())
    return True


def is_one_of_several() -> bool:
    """Whether torchrun or srun started this process as one of several. Sets torchrun's variables from srun's."""
    _translate_slurm_variables()
    if "TORCHELASTIC_RUN_ID" not in os.environ or _number("WORLD_SIZE", 1) == 1:
        return False
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        _number(name)
    return True


def _translate_slurm_variables() -> None:
    env = os.environ
    if _number("SLURM_STEP_NUM_TASKS", 1) > 1 and "RANK" not in env:
        first_host = subprocess.run(
            ["scontrol", "show", "hostnames", env["SLURM_STEP_NODELIST"]], capture_output=True, text=True, check=True
        ).stdout.split()[0]
        num_nodes = int(env["SLURM_STEP_NUM_NODES"])
        env.setdefault("MASTER_ADDR", first_host)
        env.setdefault("MASTER_PORT", str(15000 + (int(env["SLURM_JOB_ID"]) * 7 + int(env["SLURM_STEP_ID"])) % 15000))
        env |= {
            "RANK": env["SLURM_PROCID"],
            "LOCAL_RANK": env["SLURM_LOCALID"],
            "GROUP_RANK": env["SLURM_NODEID"],
            "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
            "LOCAL_WORLD_SIZE": str(int(env["SLURM_STEP_NUM_TASKS"]) // num_nodes),
            "TORCHELASTIC_RUN_ID": env["SLURM_JOB_ID"],
        }


def _number(variable: str, default: int | None = None) -> int:
    value = os.environ.get(variable, "" if default is None else str(default))
    if not value.isdecimal():
        raise InputError(
            f"{variable}={value}: torchrun and srun set a number here; start with one, or unset its variables"
        )
    return int(value)


def fit_to_world(cfg: DictConfig) -> None:
    """Set the trainer's devices and nodes to what torchrun or srun has started.

    Raises:
        InputError: the user set another number of devices.
    """
    num_devices = int(os.environ["LOCAL_WORLD_SIZE"])
    for typed_override in HydraConfig.get().overrides.task:
        if typed_override.startswith("trainer.devices=") and typed_override != f"trainer.devices={num_devices}":
            raise InputError(f"{typed_override}: {num_devices} processes were started on this node; leave it out")
    with open_dict(cfg):
        cfg.trainer.devices, cfg.trainer.num_nodes = num_devices, int(os.environ["WORLD_SIZE"]) // num_devices


def meet(listener: int | None = None) -> "Store":
    """Connect to the store of the run's processes, or serve it in rank 0, on the listening socket if one is given."""
    from torch.distributed import DistNetworkError, TCPStore, default_pg_timeout

    address, port, serves = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), os.environ["RANK"] == "0"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        store = TCPStore(
            address, port, is_master=serves, wait_for_workers=False, master_listen_fd=listener if serves else None
        )
    else:  # torchrun's store outlives a restart and keeps gloo's old keys; rank 0 puts the new store's port there
        agents = TCPStore(address, port, is_master=False, wait_for_workers=False)
        if serves:
            store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
            agents.set(PORT, str(store.port))
        while not serves:
            try:
                store = TCPStore(address, int(agents.get(PORT)), timeout=timedelta(seconds=2), wait_for_workers=False)
                store.set_timeout(default_pg_timeout)
                break
            except DistNetworkError:  # the port of the previous attempt, which has ended
                time.sleep(0.1)
        os.environ["MASTER_PORT"] = str(store.port)
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # so torch's process group uses this store and opens no other
    return store


def as_text(cfg: DictConfig) -> str:
    """A job as JSON: its configuration, with interpolations resolved once for all processes, and Hydra's."""
    resolved = copy.deepcopy(cfg)
    for key in resolved:
        with suppress(InterpolationKeyError):  # refers to the model's sizes, which the run adds later
            if OmegaConf.is_config(resolved[key]):
                OmegaConf.resolve(resolved[key])
            else:
                resolved[key] = resolved[key]
    hydra: Any = OmegaConf.to_container(HydraConfig.get(), enum_to_str=True)
    hydra["sweep"]["dir"] = HydraConfig.get().sweep.dir  # resolved here: it refers to this process's start time
    return json.dumps({"cfg": OmegaConf.to_container(resolved), "hydra": hydra})


def train_as_rank(store: "Store") -> float | None:
    """Train with rank 0's configuration, and with Hydra's state set as in a Hydra job."""
    job = json.loads(store.get(JOB))
    cfg = OmegaConf.create(job["cfg"])
    OmegaConf.set_struct(cfg, True)
    setup_globals()
    state = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    with open_dict(state.hydra):  # plugins add keys
        state.merge_with({"hydra": job["hydra"]})
    HydraConfig.instance().set_config(state)
    hydra = HydraConfig.get()
    if os.environ["RANK"] == "0":
        dictConfig(OmegaConf.to_container(hydra.job_logging, resolve=True))  # type: ignore[arg-type]
    else:  # rank 0 prints it
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    return train_here(cfg)
