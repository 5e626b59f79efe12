"""Train a network as configured in conf/: python scripts/train.py [group=choice ...] [key=value ...]"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from runwright.launch.application import run
from runwright.launch.job import run_job

CONF = str(Path(__file__).resolve().parents[1] / "conf")


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> float | None:
    return run_job(cfg)  # in one process or several; runwright.training.train is the run itself


if __name__ == "__main__":
    run(main, CONF)
