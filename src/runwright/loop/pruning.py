"""Pruning: trials of a search that do worse than earlier ones are stopped early."""

from pathlib import Path
from typing import TYPE_CHECKING

from hydra.conf import HydraConf
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer

from runwright.rundir.files import STUDY_JOURNAL
from runwright.sweeps.study import PRUNED, STUDY, open_journal

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


class Pruning(Callback):
    """Reports `monitor` to an Optuna trial after each validation, and stops training if the trial is pruned.

    Args:
        journal: file of the study, see `open_journal`.
        number: of this run's trial, which must be running in the study.
        pruner: decides, by comparing values of the same epoch.
        monitor: a validation metric.
    """

    def __init__(self, journal: Path, number: int, pruner: "BasePruner", monitor: str) -> None:
        self.journal, self.number, self.pruner, self.monitor = journal, number, pruner, monitor
        self.reason = ""  # why training was stopped; empty if it was not

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        import optuna

        storage = open_journal(self.journal)
        study = optuna.load_study(study_name=STUDY, storage=storage, pruner=self.pruner)
        trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(STUDY), self.number)
        self._known_epochs = set(storage.get_trial(trial_id).intermediate_values)  # if this trial has run before
        self._trial = optuna.trial.Trial(study, trial_id)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or self.monitor not in trainer.callback_metrics:
            return
        value, epoch = float(trainer.callback_metrics[self.monitor]), trainer.current_epoch
        if trainer.strategy.broadcast(trainer.is_global_zero and self._should_prune(value, epoch)):
            self.reason = f"pruned: {self.monitor} {value:.4g} after epoch {epoch}, by {type(self.pruner).__name__}"
            trainer.should_stop = True

    def _should_prune(self, value: float, epoch: int) -> bool:
        if epoch not in self._known_epochs:
            self._trial.report(value, epoch)
            self._known_epochs.add(epoch)
        if not self._trial.should_prune():
            return False
        self._trial.set_user_attr(PRUNED, True)
        return True


def pruning_of(hydra: HydraConf, monitor: str) -> list[Pruning]:
    """The callback for a job of a search. It is not in the config, because `from=` repeats a run without its search."""
    if hydra.mode != RunMode.MULTIRUN or not hydra.sweeper.get("pruner"):
        return []
    return [Pruning(Path(hydra.sweep.dir) / STUDY_JOURNAL, hydra.job.num, instantiate(hydra.sweeper.pruner), monitor)]
