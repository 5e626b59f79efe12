"""MLflow and Weights & Biases. A resumed run continues its run in the tracker.

Where they report to is set on this machine, by the environment variables of each tracker, never by a recorded config.
Metrics that a killed run logged after its last checkpoint are logged again, with the same values.
"""

import os
import re
import secrets
import shlex
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from runwright.rundir.durable import write
from runwright.rundir.files import MLFLOW_ID, WANDB_ID
from runwright.rundir.read import read_inside

LONGEST_ID = 32  # characters
MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")  # that W&B accepts


class MLflow(MLFlowLogger):
    """Reports to `MLFLOW_TRACKING_URI`, by default to the SQLite file `mlflow.db` in the current directory.

    Args:
        save_dir: run directory; its name becomes the run's name, and `mlflow.id` in it holds the run's identifier.
        experiment_name: under which MLflow lists the run.
    """

    def __init__(self, save_dir: Path, experiment_name: str) -> None:
        _require("mlflow")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        self._file = save_dir / MLFLOW_ID
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd() / 'mlflow.db'}")
        database = Path(uri.removeprefix("sqlite:///"))
        if database != Path(uri) and not database.parent.is_dir():
            raise ValueError(f"MLFLOW_TRACKING_URI={uri}: there is no directory {database.parent}")
        # Each process that finds no tables in the database creates them, so only one may look at a time. The lock is
        # a separate file, because on some file systems a lock on the database itself would block SQLite.
        with nullcontext() if database == Path(uri) else FileLock(f"{database}.lock"):
            super().__init__(
                experiment_name=experiment_name,
                run_name=save_dir.name,
                tracking_uri=uri,
                tags={"run_directory": str(save_dir.absolute())},
                run_id=_read_id(self._file),
            )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        client = super().experiment
        if not self._file.exists():
            write(self._file, (self._run_id or "").encode())
        return client

    @property
    def shown_by(self) -> str:
        """The command or the address that shows the run."""
        uri = self._tracking_uri
        return uri if uri.startswith("http") else shlex.join(["mlflow", "ui", "--backend-store-uri", uri])

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any]) -> None:  # type: ignore[override]
        """Log only new ones: MLflow refuses to change a parameter, such as `max_epochs` when a run is made longer."""
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({key: value for key, value in params.items() if key not in known})


class WandB(WandbLogger):
    """Writes to `wandb/` in the current directory, or in `WANDB_DIR`; uploads if `WANDB_MODE=online`.

    Args:
        save_dir: run directory; its name becomes the run's name, its parent's name the group, and `wandb.id` in it
            holds the run's identifier.
        project: under which Weights & Biases lists the run.
    """

    def __init__(self, save_dir: Path, project: str) -> None:
        _require("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode not in MODES:
            raise ValueError(f"WANDB_MODE={mode}: must be one of {', '.join(MODES)}")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        self._file = save_dir / WANDB_ID
        super().__init__(
            name=save_dir.name,
            group=save_dir.parent.name,
            save_dir=os.environ.get("WANDB_DIR", Path.cwd()),
            project=project,
            id=_read_id(self._file) or secrets.token_hex(4),
            mode=mode,
        )
        del self._wandb_init["anonymous"]  # W&B no longer accepts it and would warn

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            import wandb

            wandb.finish()  # the previous job's run in this process, which Lightning would reuse
            write(self._file, str(self._id).encode())
        return super().experiment

    @property
    def shown_by(self) -> str:
        """The command or the address that shows the run."""
        return self.experiment.url or f"wandb sync {os.path.relpath(Path(self.experiment.dir).parent)}"

    @rank_zero_only
    def finalize(self, status: str) -> None:
        super().finalize(status)
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)


def _require(package: str) -> None:
    if find_spec(package) is None:
        raise ValueError(f"{package} is missing; uv sync --extra {package} installs it")


def _read_id(file: Path) -> str | None:
    """The identifier in this file, or None if the file is missing or holds something else."""
    try:
        known = read_inside(file, file.parent, LONGEST_ID).decode(errors="replace")
    except FileNotFoundError:
        return None
    return known if re.fullmatch(r"[0-9a-f]{8,}", known) else None
