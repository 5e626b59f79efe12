"""What takes a GPU, or two: skipped where there is none."""

from collections.abc import Callable

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
def test_jobs_side_by_side_have_a_gpu_each(process: Callable[..., Result]) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    result = process("-m", *SMALL, "trainer=gpu", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=1,2")
    assert result.status == 0, result.err
