"""A run, from top to bottom."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from lightning import Callback
from omegaconf import DictConfig

from runwright.config.blame import error_context
from runwright.config.defaults import differences_from_defaults
from runwright.config.errors import InputError
from runwright.loggers import tensorboard
from runwright.loggers.terminal import print_config
from runwright.loop.checkpoints import LastCheckpoint
from runwright.loop.quiet import quiet_libraries
from runwright.loop.validation import LastValidation
from runwright.rundir.read import read_overrides, read_provenance
from runwright.signals import handle_signals
from runwright.training import record, resume
from runwright.training.build import construct
from runwright.training.checks import check_lengths, check_loaders, check_monitors, loader_of, num_batches
from runwright.training.threads import set_num_threads
from runwright.training.weights import start_from

log = logging.getLogger(__name__)


def train(
    cfg: DictConfig, run_dir: Path, overrides: Sequence[str] = (), callbacks: Sequence[Callback] = ()
) -> float | None:
    """Train and test a run in its directory; with `cfg.resume`, resume the run there.

    Args:
        cfg: as composed from conf/.
        run_dir: for this run only.
        overrides: as the user typed them, to be recorded.
        callbacks: in addition to the configuration's; not recorded.

    Returns:
        The monitored metric's best value, for a sweeper; None if nothing logged it.

    Raises:
        InputError: a bad value, found before the first step.
        Interrupted: a signal asked the run to stop.
    """
    started = time.time()
    quiet_libraries()
    with handle_signals() as signals:
        before = resume.recorded(run_dir) if cfg.resume else None
        if before is None:
            record.check_new(run_dir)
        validation = LastValidation()
        data, task, trainer = construct(cfg, run_dir, overrides, [*callbacks, validation])
        set_num_threads(cfg, task.model, data.batch_size, None if before is None else before.get("num_threads"))
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                callback.signals = signals
        changed = {} if before is None else resume.changes(run_dir, before, cfg)
        if before is not None and (metrics := resume.finished(run_dir, changed)):
            value = "-" if metrics["best"] is None else f"{metrics['best']:.4g}"
            log.info("%s is finished: %s; best %s %s", run_dir, metrics["stopped"], metrics["monitor"], value)
            return metrics["best"]

        trainer.strategy.setup_environment()  # connects to the other processes, if there are any
        data.trainer = trainer  # Lightning sets it later, but loaders may need the number of processes
        with error_context(cfg, "data", overrides):
            if trainer.local_rank == 0:
                data.prepare_data()
            trainer.strategy.barrier()
            data.setup("fit")
        has_validation = num_batches(loader_of(data, "val")) > 0 and trainer.limit_val_batches != 0
        logged = [*task.metric_keys("train"), *(task.metric_keys("val") if has_validation else [])]
        check_monitors(cfg, logged, has_validation)
        check_loaders(cfg, trainer, data)
        check_lengths(cfg, data)
        try:
            task.check(data)
        except ValueError as error:
            raise InputError(f"task.{error}") from error

        init_report = start_from(task.model, Path(cfg.init_from)) if cfg.get("init_from") and before is None else []
        typed_before, starts = ([], []) if before is None else (read_overrides(run_dir), read_provenance(run_dir))
        differences = differences_from_defaults(cfg, [*typed_before, *overrides])
        if before is None:
            record.start(run_dir, cfg, overrides)
            if trainer.is_global_zero:
                print_config(cfg, differences)
            for line in init_report:
                log.info(line)
        with record.sole_writer(run_dir):
            checkpoint = None if before is None else resume.start(run_dir, cfg, overrides, changed, trainer)
            git = record.provenance(run_dir, started, starts, task)
            record.log_hyperparameters(trainer, cfg, [*logged, *task.metric_keys("test")])
            if checkpoint is None:
                tensorboard.log_layout(trainer, logged, overrides, differences, git)
            with resume.restoring(checkpoint):
                trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            outcome = record.outcome_of_fit(trainer, cfg, run_dir)  # before the test replaces metrics and states
            if cfg.test:
                best = record.best_checkpoint(trainer) if has_validation else None
                trainer.test(task, datamodule=data, ckpt_path=best, weights_only=True, verbose=False)
                outcome["test"] = record.metrics_of(trainer)
            outcome["differences"] = differences
            is_resumed = checkpoint is not None
            record.finish(run_dir, cfg, trainer, outcome, started, is_resumed, validation.step)
        return outcome["best"]
