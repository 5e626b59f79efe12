"""What takes a GPU, or two: skipped where there is none."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Result

SMALL = ["trainer.max_epochs=2", "model.hidden=[32]", "data.val_size=156"]
NUM_GPUS = torch.cuda.device_count()
needs_gpu = pytest.mark.skipif(NUM_GPUS < 1, reason="takes a GPU")
needs_two_gpus = pytest.mark.skipif(NUM_GPUS < 2, reason="takes two GPUs")


@needs_gpu
@pytest.mark.parametrize(
    "options", [["trainer=gpu"], ["trainer=gpu_fast"], ["trainer=mixed_precision", "trainer.accelerator=gpu"]]
)
def test_a_gpu_learns_what_the_cpu_does(cli: Callable[..., Result], options: list[str]) -> None:
    on_cpu = cli(*SMALL, "trainer=cpu").metrics
    on_gpu = cli(*SMALL, *options).metrics
    assert on_gpu["accelerator"] == "cuda"
    assert on_gpu["test"]["test_acc"] == pytest.approx(on_cpu["test"]["test_acc"], abs=0.03)


@needs_gpu
def test_more_gpus_than_there_are_is_one_sentence(cli: Callable[..., Result]) -> None:
    result = cli("trainer=gpu", f"trainer.devices={NUM_GPUS + 1}", *SMALL)
    assert result.status == 2
    assert result.err.startswith(f"trainer.devices={NUM_GPUS + 1}: ")
    assert result.run_dirs == []


@needs_two_gpus
def test_two_gpus_give_the_numbers_of_one(process: Callable[..., Result], cli: Callable[..., Result]) -> None:
    one = cli(*SMALL, "trainer=gpu", "hydra.run.dir=one").metrics
    result = process(*SMALL, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=gpu", "hydra.run.dir=two")
    assert result.status == 0, result.err
    two = Result(0, "", "", [path for path in result.run_dirs if path.name == "two"]).metrics
    for stage in ("fit", "test"):
        assert two[stage] == pytest.approx(one[stage], rel=1e-3)


@needs_two_gpus
def test_jobs_side_by_side_have_a_gpu_each(process: Callable[..., Result], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "gpus.py").write_text(
        "import os\nfrom pathlib import Path\nfrom lightning import Callback\n\nclass Gpus(Callback):\n"
        "    def on_fit_start(self, trainer, task):\n"
        "        Path(trainer.default_root_dir, 'gpus').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    )
    joblib = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+callbacks.gpus._target_=gpus.Gpus"]
    result = process("-m", *SMALL, "trainer=gpu", *joblib, "seed=1,2", PYTHONPATH=str(tmp_path))
    assert result.status == 0, result.err
    used = [(run_dir / "gpus").read_text() for run_dir in result.run_dirs]
    assert len(set(used)) == 2
    metrics = [json.loads((run_dir / "metrics.json").read_text()) for run_dir in result.run_dirs]
    assert [each["accelerator"] for each in metrics] == ["cuda", "cuda"]
