"""Search with Optuna: a Hydra sweeper.

The study is a journal in the sweep directory; any number of processes can add to it. A trial's number is its job's.
Optuna is imported only when a search starts, because every command imports this module.
"""

import fcntl
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig

from runwright.config.arguments import complaining
from runwright.config.blame import error_context
from runwright.config.errors import InputError
from runwright.rundir.files import STUDY_CLAIMS, STUDY_JOURNAL
from runwright.sweeps.grid import merged, raise_if_debugged, raise_if_refused, subdir
from runwright.sweeps.study import PRUNED, STUDY, open_journal

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Runs trials until the study holds `num_trials`.

    It continues a study found in the sweep directory: finished trials count, and interrupted ones are resumed. Several
    searches can run in one sweep directory at the same time; they share its study.

    Args:
        params: key -> values, in Hydra's syntax; the command line replaces some and adds others.
        num_trials: number of trials in the whole study, including failed ones.
        num_parallel: number of trials passed to the launcher at a time; below 1, the number of cores.
        sampler: `_target_` and options. Each trial has its own sampler, seeded by `seed` and its number, so that it
            draws the same in any process and after a restart.
        pruner: `_target_` and options; None for no pruning. The jobs use it.
        mode: whether lower (`min`) or higher (`max`) is better for the monitored metric.
    """

    def __init__(
        self,
        params: DictConfig | None,
        num_trials: int,
        num_parallel: int,
        sampler: DictConfig,
        pruner: DictConfig | None,
        mode: str | None = None,
    ) -> None:
        if not isinstance(num_trials, int) or num_trials < 1:
            raise ValueError(f"num_trials must be a whole number of at least 1, got {num_trials}")
        self.params: dict[Any, str] = dict(params or {})
        self.num_trials = num_trials
        self.num_parallel = num_parallel if num_parallel > 0 else os.cpu_count() or 1
        self.sampler, self.pruner, self.mode = sampler, pruner, mode

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.cfg, self.parser = config, OverridesParser.create(config_loader=hydra_context.config_loader)
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        with complaining():
            self._search(arguments)

    def _search(self, arguments: list[str]) -> None:
        try:
            import optuna
            from optuna.study import StudyDirection
        except ImportError:
            raise InputError("hydra/sweeper=optuna: uv sync --extra sweep installs it") from None

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        overrides = merged(self.parser, self.params, arguments)
        fixed = [each.input_line or "" for each in overrides if not each.is_sweep_override()]
        self.space = {each.get_key_element(): _distribution(each) for each in overrides if each.is_sweep_override()}
        if not self.space:
            raise InputError("hydra/sweeper=optuna: nothing to search; give a key several values or an interval(a,b)")
        with error_context(self.cfg, "hydra.sweeper", arguments):  # fail here, not in the jobs
            instantiate(self.sampler), instantiate(self.pruner)

        self.directory = Path(self.cfg.hydra.sweep.dir)
        if self.mode not in ("min", "max"):
            raise InputError(f"mode={self.mode}: must be min or max")
        journal, mode = self.directory / STUDY_JOURNAL, self.mode
        journal.parent.mkdir(parents=True, exist_ok=True)
        direction = StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE
        self.study = optuna.create_study(
            study_name=STUDY, storage=open_journal(journal), direction=direction, load_if_exists=True
        )
        if self.study.direction != direction:
            raise InputError(
                f"mode={mode}: {self.directory} holds a search of the other mode; choose another directory"
            )
        with (self.directory / STUDY_CLAIMS).open("ab") as file:
            claims, done = _Claims(file), list[JobReturn]()
            while batch := self._next(claims):
                for _, group in groupby(enumerate(batch), lambda pair: pair[1].number - pair[0]):  # consecutive numbers
                    trials = [trial for _, trial in group]
                    jobs = [self._job(trial, fixed) for trial in trials]
                    results = self.jobs.launch(jobs, trials[0].number)
                    for trial, result in zip(trials, results, strict=True):
                        self._tell(trial.number, result)
                        claims.release(trial.number)
                    raise_if_debugged(results)
                    done += results
        raise_if_refused(done)
        self._report()

    def _job(self, trial: "Trial | FrozenTrial", fixed: Sequence[str]) -> list[str]:
        overrides = [*fixed, *(f"{key}={value}" for key, value in trial.params.items()), "resume=auto"]
        return [*overrides, *subdir(trial.number, overrides, self.cfg)]

    def _next(self, claims: "_Claims") -> "list[Trial | FrozenTrial]":
        """Claim up to `num_parallel` trials: first interrupted ones, then new ones."""
        from optuna.trial import TrialState

        batch: list[Trial | FrozenTrial] = []
        for number in [trial.number for trial in self.study.get_trials(False, [TrialState.RUNNING])]:
            if len(batch) < self.num_parallel and claims.take(number):
                trial = self.study.get_trials(False)[number]
                if trial.state == TrialState.RUNNING and trial.params.keys() == self.space.keys():
                    log.info("trial %d was interrupted and is resumed", number)
                    batch.append(trial)
                    continue
                if trial.state == TrialState.RUNNING:  # killed before all of its values were drawn, or of another space
                    self.study.tell(number, state=TrialState.FAIL)
                claims.release(number)
        with claims.exclusive():  # so that no other process takes the same number
            while len(batch) < self.num_parallel and (number := len(self.study.get_trials(False))) < self.num_trials:
                claims.take(number)
                seed = self.sampler.get("seed")
                own = {} if seed is None else {"seed": _mixed(seed, number)}
                self.study.sampler = instantiate(self.sampler, **own)
                batch.append(self.study.ask(self.space))
        return batch

    def _tell(self, number: int, job: JobReturn) -> None:
        from optuna.trial import TrialState

        value = job.return_value if job.status == JobStatus.COMPLETED else None
        if value is None or not math.isfinite(value):
            self.study.tell(number, state=TrialState.FAIL)
        elif self.study.get_trials(False)[number].user_attrs.get(PRUNED):
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            self.study.tell(number, value)

    def _report(self) -> None:
        from optuna.trial import TrialState

        trials = self.study.get_trials(False)
        if not any(trial.state == TrialState.COMPLETE for trial in trials):
            print(f"{self.directory}: none of {len(trials)} trials completed", file=sys.stderr)
            sys.exit(1)
        best = self.study.best_trial
        values = " ".join(f"{key}={value}" for key, value in best.params.items())
        log.info("best of %d trials: %d, %s %.4g\n%s", len(trials), best.number, self.cfg.monitor, best.value, values)


def _mixed(seed: int, number: int) -> int:
    """A seed for one trial. With consecutive seeds, the first draws of the generators would cluster."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


class _Claims:
    """Locks on trials: the process that runs trial n holds a lock on byte n + 1 of a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def take(self, number: int) -> bool:
        """Claim a trial, unless another process holds it; a killed process loses its claims."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except OSError:
            return False
        return True

    def release(self, number: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, number + 1)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait for other processes in this context, then exclude them."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, 0)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, 0)


def _distribution(override: Override) -> "BaseDistribution":
    from optuna import distributions

    sweep: Any = override.value()
    options: dict[str, Any]
    if isinstance(sweep, RangeSweep):
        numbers = list(sweep.range())
        low, high, options = min(numbers), max(numbers), {"step": abs(sweep.step)}
    elif isinstance(sweep, IntervalSweep):
        low, high, options = sweep.start, sweep.end, {"log": "log" in sweep.tags}
    else:
        return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    try:
        kind = distributions.IntDistribution if isinstance(low, int) else distributions.FloatDistribution
        return kind(low, high, **options)
    except ValueError as error:
        raise InputError(f"{override.input_line}: {error}") from None
