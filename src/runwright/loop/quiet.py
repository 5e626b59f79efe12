"""What the libraries say that is not about the run."""

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what Lightning and torch say of themselves and not of the run."""
    for message in (
        ".*LeafSpec.*",  # between Lightning 2.6.6 and torch 2.15, not the user's to mend
        ".*Total length of `list`.*",  # no validation loaders are an empty list of them
        ".*exists and is not empty.*",  # the CSV logger finds config.yaml there, a resumed run its checkpoints
        ".*sync_dist=True.*",  # torchmetrics have reduced what is logged
        ".*smaller than the logging interval.*",  # a short epoch is logged at its first batch
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning").handlers.clear()  # Hydra's handlers print what it passes on
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)  # their INFO is about devices and products
    for table in ("profilers", "callbacks.model_summary"):  # but for these, which were asked for
        logging.getLogger(f"lightning.pytorch.{table}").setLevel(logging.INFO)
