"""What two runs have to agree on to be called the same."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CLOCKS = "speed/"


def left_by(run_dir: Path) -> dict[str, Any]:
    """All that a run computed, bit by bit; not how fast."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    kept = ("best", "fit", "test", "epochs", "steps", "stopped", "best_checkpoint", "last_checkpoint")
    files = {path.name for path in (run_dir / "checkpoints").iterdir()} - {"previous.ckpt"}  # may be of a signal's step
    # TensorBoard reads the files of one second in the order of process numbers and counts, as text: 10 before 9.
    for number, file in enumerate(sorted(run_dir.glob("events.*"), key=_age)):
        file.rename(run_dir / f"events.out.tfevents.{number:04}")
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(CLOCKS)]
    table = run_dir / "metrics.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    return {
        "metrics": {key: metrics[key] for key in kept},
        "checkpoints": {name: plain(load(run_dir / "checkpoints" / name)) for name in files},
        "curves": {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags},
        "csv": [{name: value for name, value in row.items() if not name.startswith(CLOCKS)} for row in rows],
    }


def _age(events: Path) -> list[int]:
    return [int(part) for part in events.name.split(".") if part.isdigit()]


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def plain(value: Any) -> Any:
    """Tensors as lists, without paths and times, and a score that Lightning neither reads nor restores."""
    if isinstance(value, dict):
        return {
            key: plain(each)
            for key, each in value.items()
            if key not in ("folder", "replaced", "dirpath", "current_score", "best_k_models", "Timer")
            and not str(key).endswith("_path")
        }
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def differences(one: Any, two: Any, where: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in one | two:
            yield from differences(one.get(key), two.get(key), f"{where}/{key}")
    elif one != two:
        yield f"{where}: {one!s:.200} not {two!s:.200}"
