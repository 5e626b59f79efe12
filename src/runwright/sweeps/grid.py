"""Grid search: a Hydra sweeper that runs all combinations of the given values."""

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from runwright.config.arguments import complaining, shows_traces
from runwright.config.errors import InputError, OccupiedError
from runwright.config.walk import quoted
from runwright.rundir.durable import write
from runwright.rundir.files import MULTIRUN
from runwright.sweeps.names import job_name

JOB_NUMBER = "${hydra:job.num}"  # the name that conf/hydra_settings.yaml leaves to the sweeper


class GridSweeper(Sweeper):
    """Like Hydra's BasicSweeper, but the launcher alone composes each job, and a failed job does not stop the others.

    BasicSweeper composes all jobs before the first one starts, to check them; here the check of the command line has
    already done that for each value. It is not a subclass, because BasicSweeper is private (hydra._internal).

    Args:
        max_batch_size: number of jobs passed to the launcher at a time; None for all.
        params: key -> values; the command line replaces some and adds others.
    """

    def __init__(self, max_batch_size: int | None, params: DictConfig | None) -> None:
        if max_batch_size is not None and (not isinstance(max_batch_size, int) or max_batch_size < 1):
            raise ValueError(f"max_batch_size must be null or a whole number of at least 1, got {max_batch_size}")
        self.max_batch_size = max_batch_size
        self.params: dict[Any, str] = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.cfg, self.parser = config, OverridesParser.create(config_loader=hydra_context.config_loader)
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        with complaining():
            directory = Path(self.cfg.hydra.sweep.dir)
            directory.mkdir(parents=True, exist_ok=True)
            write(directory / MULTIRUN, OmegaConf.to_yaml(self.cfg).encode())
            combinations = list(product(*map(_alternatives, merged(self.parser, self.params, arguments))))
            size = self.max_batch_size or len(combinations)
            results: list[JobReturn] = []
            for first in range(0, len(combinations), size or 1):
                batch = enumerate(map(list, combinations[first : first + size]), first)
                jobs = [[*job, *subdir(number, job, self.cfg)] for number, job in batch]
                results += self.jobs.launch(jobs, initial_job_idx=first)
                raise_if_debugged(results)
            raise_if_refused(results)
            if any(result.status != JobStatus.COMPLETED for result in results):
                sys.exit(1)


def merged(parser: OverridesParser, params: dict[Any, str], arguments: list[str]) -> list[Override]:
    """The sweeper's parameters and the command line's overrides, which replace parameters with the same key."""
    typed = parser.parse_overrides(arguments)
    keys = {override.get_key_element() for override in typed}
    own = [f"{key}={values}" for key, values in params.items() if key not in keys]
    return [*parser.parse_overrides(own), *typed]


def subdir(number: int, overrides: Sequence[str], cfg: DictConfig) -> list[str]:
    """The override that names a job's directory; none if the configuration or the user names it otherwise."""
    if OmegaConf.to_container(cfg.hydra.sweep)["subdir"] != JOB_NUMBER:  # type: ignore[index, call-overload]
        return []
    return [f"hydra.sweep.subdir={quoted(job_name(number, overrides, Path(cfg.hydra.sweep.dir)))}"]


def raise_if_debugged(results: Sequence[JobReturn]) -> None:
    """With HYDRA_FULL_ERROR=1, raise a failed job's error; otherwise the leaderboard and its error.txt show it."""
    if shows_traces():
        for result in results:
            _ = result.return_value  # raises it


def raise_if_refused(results: Sequence[JobReturn]) -> None:
    """Raise an InputError if directories of jobs belong to other runs: these jobs could leave no error.txt there."""
    errors = []
    for result in results:
        try:
            _ = result.return_value
        except OccupiedError as error:
            errors.append(error)
        except Exception:  # shown in the leaderboard
            continue
    if errors:
        raise InputError(f"{len(errors)} of {len(results)} jobs were refused, the first: {errors[0]}")


def _alternatives(override: Override) -> Iterator[str]:
    key = override.get_key_element()
    if override.is_discrete_sweep():
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())
    elif override.is_sweep_override():
        raise InputError(f"{override.input_line}: a grid takes values; hydra/sweeper=optuna searches an interval")
    else:
        yield override.input_line or ""
