"""Under which step the values of an epoch are logged."""

from lightning import Trainer


def epoch_end_step(trainer: Trainer) -> int:
    """The step to log an epoch's values under: its last one, counted from 0.

    Where `max_steps` or `max_time` ends the run within an epoch, the epoch is incomplete and the step is one later. If
    the run is then made longer and resumed, it drops everything logged from its first new step on, so the values of
    the whole epoch replace these.
    """
    return trainer.global_step - 1 if trainer.is_last_batch else trainer.global_step
