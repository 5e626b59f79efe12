"""What names of checkpoints may hold, typed or recorded."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from runwright.loop.checkpoints import check_filename, fields

GOOD = {
    "best-{epoch:03d}": "best-003",
    "top": "top",
    "{epoch}-{step:06d}-{val_loss:.2f}": "3-000007-0.25",
    "{val_loss}": "0.25",
    "{val_loss:.1e} {epoch:2d}": "2.5e-01  3",
    "modèle-{epoch}": "modèle-3",
    "..": "..",
    None: "3-7",
}
BAD = [
    "{epoch].__class__.__init__.__globals__[os].environ[HOME]:}",
    "{val_loss].__class__:}",
    "{epoch[0]}",
    "{epoch!r}",
    "{epoch:{step}}",
    "{epoch:>{step}}",
    "{epoch:999999999d}",
    "{epoch:03s}",
    "{val_loss:d}",
    "{epoch:x}",
    "{}",
    "{0}",
    "{{epoch}}",
    "{epoch",
    "epoch}",
    "../best",
    "/tmp/best",
    "a/b-{epoch}",
    "{norm/all:.3f}",
    "a\\b",
    "a\0b",
    3,
    ["{epoch}"],
]


@pytest.mark.parametrize("filename", GOOD)
def test_what_is_allowed_is_what_lightning_writes(filename):
    check_filename(filename)
    saver = ModelCheckpoint("/x", filename, auto_insert_metric_name=False)
    metrics = {"epoch": torch.tensor(3), "step": torch.tensor(7), "val_loss": torch.tensor(0.25)}
    assert saver.format_checkpoint_name(metrics) == f"/x/{GOOD[filename]}.ckpt"


@pytest.mark.parametrize("filename", BAD)
def test_all_else_is_refused(filename):
    with pytest.raises(ValueError, match="filename must be a file's name"):
        check_filename(filename)


def test_the_fields_are_the_metrics():
    assert fields("{epoch:03d}-{val_loss:.2f}-{step}-{val_acc}") == ["val_loss", "val_acc"]


@pytest.mark.parametrize(
    "target", ["runwright.loop.checkpoints.BestCheckpoint", "lightning.pytorch.callbacks.ModelCheckpoint"]
)
@pytest.mark.parametrize("filename", BAD[:2])
def test_a_recorded_name_is_refused_as_a_typed_one_is(cli, made, tmp_path, target, filename):
    run_dir = Path(shutil.copytree(made, tmp_path / "stranger"))
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    config["callbacks"] = {"mine": {"_target_": target, "filename": filename, "monitor": "train_loss"}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    for door in ("from", "resume"):
        result = cli(f"{door}={run_dir}")
        assert result.status == 2
        assert result.err.startswith(f"callbacks.mine.filename={filename}: filename must be")
    result = cli(f"callbacks.best_checkpoint.filename='{filename}'")
    assert result.status == 2
    assert result.err.startswith(f"callbacks.best_checkpoint.filename={filename}: filename must be")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stranger"]


def test_a_metric_that_nothing_logs_is_named(cli, tmp_path):
    result = cli("'callbacks.best_checkpoint.filename=\"{epoch}-{val_los:.2f}\"'".strip("'"))
    assert result.status == 2
    assert (
        "callbacks.best_checkpoint.filename={epoch}-{val_los:.2f}: nothing logs val_los; there are: train_"
        in result.err
    )
    assert not list(tmp_path.iterdir())
