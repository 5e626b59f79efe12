"""Silences library messages that are not about the run."""

import logging
import warnings


def quiet_libraries() -> None:
    """Silence messages of Lightning and torch about themselves."""
    for message in (
        ".*LeafSpec.*",  # Lightning 2.6.6 with torch 2.15; a user cannot fix it
        ".*Total length of `list`.*",  # without validation the loaders are an empty list
        ".*exists and is not empty.*",  # config.yaml for the CSV logger, checkpoints for a resumed run
        ".*sync_dist=True.*",  # torchmetrics has already reduced what is logged
        ".*smaller than the logging interval.*",  # a short epoch still logs its first batch
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning").handlers.clear()  # its records reach Hydra's handlers, which print them
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(
            logging.WARNING
        )  # their INFO is about devices and advertisements
    for table in ("profilers", "callbacks.model_summary"):  # except these, which the user asked for
        logging.getLogger(f"lightning.pytorch.{table}").setLevel(logging.INFO)
