"""Train a network as conf/ says: python scripts/train.py [group=choice ...] [key=value ...]"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from litmlp.runs.jobs import job, run
from litmlp.runs.launch import launch

CONF = str(Path(__file__).resolve().parents[1] / "conf")


@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> float | None:
    with job():
        return launch(cfg)


if __name__ == "__main__":
    run(main, CONF)
