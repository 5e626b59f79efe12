"""Runs made by hand, for what reads run directories."""

import json
from pathlib import Path
from typing import Any

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\"&{{7*7}}"


def make_run(folder: Path, **changes: Any) -> Path:
    """A finished run of three epochs of ten steps, with curves in metrics.csv."""
    folder.mkdir(parents=True)
    settings = {"seed": 0, "optimizer.lr": 0.1, **changes.pop("settings", {})}
    metrics = {
        "name": "toy",
        "monitor": "val_loss",
        "mode": "min",
        "best": 0.25,
        "best_epoch": 1,
        "seconds": 1.0,
        "fit": {"train_loss": 0.125, "val_loss": 0.5},
        "test": {"test_acc": 0.75, "test_loss": 0.375},
        "epochs": 3,
        "steps": 30,
        "stopped": "reached trainer.max_epochs",
        "settings": settings,
        "best_checkpoint": "checkpoints/best-001.ckpt",
        **changes,
    }
    made = {"started": "2026-11-21T10:00:00+0000", "git": None, "versions": {"torch": "2.15.0"}}
    (folder / "provenance.json").write_text(json.dumps([made]))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    typed = [f"{key}={value}" for key, value in settings.items()]
    (folder / "overrides.yaml").write_text(json.dumps(typed))
    rows = ["9,0,1.0,0.75", "19,1,0.5,0.25", "29,2,0.125,0.5"]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train_loss,val_loss", *rows]))
    return folder
