"""A run is gone on with from a checkpoint of a stranger's, which names files that are none of its own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import archive
from lightning.pytorch.callbacks import ModelCheckpoint

from runwright.loop.checkpoints import _keep_names

SMALL = ["data.batch_size=400", "model.hidden=[8]", "logger=none", "trainer.limit_train_batches=2"]


def hostile(paths: list[Path], folder: str) -> dict[str, Any]:
    """What the state of a ModelCheckpoint may hold that removes these."""
    scores = {str(path): torch.tensor(100.0 + i) for i, path in enumerate(paths)}
    worst = str(paths[-1])
    return {"best_k_models": scores, "kth_best_model_path": worst, "kth_value": scores[worst], "dirpath": folder}


@pytest.mark.parametrize("way", ["replaced", "best", "best with its folder", "score"])
def test_nothing_outside_the_checkpoints_is_removed_or_written(cli, tmp_path, way):
    run_dir = cli(*SMALL, "trainer.max_epochs=1", "callbacks.best_checkpoint.save_top_k=1").run_dir
    mine, inner = tmp_path / "mine.ckpt", run_dir / "train.log"
    mine.write_text("mine")
    path = run_dir / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    (key,) = (key for key in content["callbacks"] if key.startswith("BestCheckpoint"))
    state = content["callbacks"][key]
    if way == "replaced":
        names = [str(mine), "../../../../mine.ckpt", str(inner), "../train.log", "..", "", "a\0.ckpt"]
        content["resume"]["replaced"] = [*names, *(f"../{'../' * i}mine.ckpt" for i in range(5))]
    elif way == "score":
        content["resume"]["metrics"] |= {"val_loss": "/../../../../x", "val_acc": ["x"], "epoch": {"a": 1}}
    else:
        folder = str(tmp_path) if "folder" in way else state["dirpath"]
        state |= hostile([mine, inner], folder) | {"best_model_path": str(mine), "last_model_path": str(mine)}
        content["resume"]["folder"] = folder
    path.write_bytes(archive(content))
    (run_dir / "metrics.json").unlink()
    before = {each for each in tmp_path.rglob("*") if run_dir not in each.parents}
    assert cli(f"resume={run_dir}", "trainer.max_epochs=3").status == 0
    assert mine.read_text() == "mine"
    assert inner.is_file()
    assert {each for each in tmp_path.rglob("*") if run_dir not in each.parents} == before


@pytest.mark.parametrize(
    "path",
    ["{}/x/best-001.ckpt", "/their/runs/x/checkpoints/best-001.ckpt", "best-001.ckpt", "{}/../../best-001.ckpt"],
)
def test_names_are_kept_wherever_the_run_was(tmp_path, path):
    saver = ModelCheckpoint(tmp_path, monitor="val_loss")
    path = path.format(tmp_path)
    state: dict[str, Any] = {"best_k_models": {path: 1.0, "/etc/passwd": 2.0}, "dirpath": "/their"}
    state |= dict.fromkeys(("best_model_path", "kth_best_model_path"), path) | {"last_model_path": "/etc/passwd"}
    trainer: Any = SimpleNamespace(checkpoint_callbacks=[saver], default_root_dir="/nowhere")
    _keep_names(trainer, {saver.state_key: state})
    name = str(tmp_path / "best-001.ckpt")
    assert state["best_k_models"] == {name: 1.0}
    assert (state["best_model_path"], state["kth_best_model_path"], state["last_model_path"]) == (name, name, "")
    assert state["dirpath"] == saver.dirpath
