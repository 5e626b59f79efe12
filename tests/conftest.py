"""The command line, run inside the test's process: a fresh process spends 15 s on importing torch and Lightning."""

import gc
import json
import logging
import os
import re
import runpy
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from runwright import report
from runwright.config.errors import InputError
from runwright.launch.application import make_plan
from runwright.launch.job import num_processes

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's, not imported yet: twice as fast where tests share their cores
gc.set_threshold(100_000)  # a tenth of the suite's time went into looking for garbage among torch's modules

SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"
CONF = SCRIPT.parents[1] / "conf"
PACKAGE: str = yaml.safe_load((CONF / "trusted.yaml").read_text())["packages"][0]
"""The project's own, which a fork renames: tests of the engine name it by this alone."""


@dataclass
class Result:
    """What a command leaves: exit status, what it printed, and the directories of its runs in the order of the jobs."""

    status: int
    out: str
    err: str
    run_dirs: list[Path]

    @property
    def run_dir(self) -> Path:
        """Of a command that was one run and succeeded."""
        assert self.status == 0, self.err
        (run_dir,) = self.run_dirs
        return run_dir

    @property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "metrics.json").read_text())


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`cli("optimizer=adam", ...)` does what `python scripts/train.py optimizer=adam ...` does, in an empty folder.

    `script="predict"` is for scripts/predict.py, and so on; `scripts` is where they lie, beside a conf/.
    """
    monkeypatch.chdir(tmp_path)
    for variable in ("HYDRA_FULL_ERROR", "DATA_ROOT"):
        monkeypatch.delenv(variable, raising=False)

    def call(*args: str | Path, script: str = "train", scripts: Path = SCRIPT.parent) -> Result:
        before = run_dirs(tmp_path)
        capfd.readouterr()
        path = str(scripts / f"{script}.py")
        with as_if_in_a_fresh_process([path, *map(str, args)]):
            try:
                runpy.run_path(path, run_name="__main__")
                status = 0
            except SystemExit as leave:
                status = leave.code or 0
                assert isinstance(status, int)
            except Exception:
                traceback.print_exc()
                status = 1
        out, err = capfd.readouterr()
        return Result(status, out, err, [path for path in run_dirs(tmp_path) if path not in before])

    return call


@pytest.fixture(autouse=True)
def _reports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of this process writes a report, which takes half a second, but in tests marked with `reports`."""
    if "reports" not in request.keywords:
        monkeypatch.setattr(report, "report_line", lambda directory: f"no report of {directory}")


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Result]:
    """The same in a process of its own, for what only that can show. `python` are options of the interpreter."""

    def call(*args: str | Path, python: tuple[str, ...] = (), **environment: str) -> Result:
        done = subprocess.run(
            [sys.executable, *python, SCRIPT, *args],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=900,  # of a busy machine, so that a hang ends too
        )
        return Result(done.returncode, done.stdout, done.stderr, run_dirs(tmp_path))

    return call


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`refused("optimizer.lr=-1", ...)` is what is said of that command line, by its check or by building its run.

    It does what the command does but for Hydra's main function, in an empty folder, and asserts what holds of every
    bad input: few lines say so, and nothing is left behind.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)

    def build(arguments: Sequence[str]) -> None:
        from runwright.training.train import train

        plan = make_plan(arguments, CONF)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", plan.arguments, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        num_processes(cfg)
        train(cfg, tmp_path / "run", cfg.hydra.overrides.task)

    def call(*arguments: str) -> str:
        before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
        with as_if_in_a_fresh_process([str(SCRIPT), *arguments]), pytest.raises(InputError) as caught:
            build(arguments)
        said = str(caught.value)
        assert 1 <= len(said.splitlines()) <= 3, said
        assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        return said

    return call


def run_dirs(folder: Path) -> list[Path]:
    """Jobs of one sweep are in the order of their numbers: 10 follows 9."""
    found = {path.parent for path in folder.rglob("config.yaml")}
    return sorted(found, key=lambda path: [part.zfill(9) for part in re.split(r"(\d+)", str(path))])


@contextmanager
def as_if_in_a_fresh_process(argv: list[str]) -> Iterator[None]:
    """Undo afterwards what a command changes for its whole process."""
    old_argv, old_environment = sys.argv, dict(os.environ)
    root = logging.getLogger()
    old_handlers, old_level = root.handlers[:], root.level
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = old_argv
        os.environ.clear()
        os.environ.update(old_environment)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        for handler in root.handlers:
            if handler not in old_handlers:
                handler.close()
        root.handlers[:], root.level = old_handlers, old_level
        if "torch" in sys.modules:
            import torch

            torch.use_deterministic_algorithms(False)
            torch.autograd.set_detect_anomaly(False)
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()


def composed(*overrides: str, conf: Path = CONF) -> DictConfig:
    """What a run of `python scripts/train.py` with these overrides is built of."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose("train", list(overrides))
    if OmegaConf.is_interpolation(cfg, "name"):  # of the default, which only a job of Hydra's resolves
        cfg.name = "test"
    return cfg


def parts(*overrides: str) -> tuple[Any, Any]:
    """Data and a task as conf/ describes them, for a trainer of the test's own."""
    from runwright.training.build import construct

    data, task, _ = construct(composed("logger=none", "~callbacks", "trainer=cpu", *overrides), Path())
    return data, task


def class_of(group: str, choice: str) -> Any:
    """The class that a file of conf/ names."""
    return get_class(OmegaConf.load(CONF / group / f"{choice}.yaml")._target_)


@pytest.fixture(scope="session")
def own_conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's conf/ that lists modules of the tests beside the project's own package."""
    folder = tmp_path_factory.mktemp("conf")
    listed = {"packages": [PACKAGE, "own_parts", "toy"], "functions": ["own_parts"]}
    (folder / "trusted.yaml").write_text(yaml.safe_dump(listed))
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory on the irises, as training leaves it, by the shortest way."""
    from runwright.training.build import make

    fixed = (
        "name=iris",
        "+model.sample_shape=[4]",
        "+model.num_outputs=3",
        "trainer.max_epochs=1",
        "mode=min",
        "num_threads=1",
    )
    cfg = composed("data=iris", "callbacks=no_validation", "monitor=train_loss", *fixed)
    run_dir = tmp_path_factory.mktemp("made")
    (run_dir / "checkpoints").mkdir()
    (run_dir / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    data, model = make(cfg, "data"), make(cfg, "model")
    data.setup()
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    checkpoint = {"state_dict": weights, "Iris": data.state_dict(), "epoch": 1, "global_step": 1}
    (run_dir / "checkpoints" / "last.ckpt").write_bytes(archive(checkpoint))
    return run_dir


def archive(content: object) -> bytes:
    """A checkpoint file."""
    import torch

    from runwright.rundir.checkpoint import seal

    buffer = BytesIO()
    torch.save(content, buffer)
    return seal(buffer.getvalue())


@pytest.fixture
def mnist_files(cli: object, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets `data=mnist` and `data=fashion_mnist` find small files of the test's own; their folder."""
    monkeypatch.setenv("DATA_ROOT", str(mnist_folder))
    return mnist_folder


@pytest.fixture(scope="session")
def mnist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in MNIST's format: noise, and a bright line whose height is the label."""
    folder = tmp_path_factory.mktemp("mnist")
    random = np.random.default_rng(0)
    for part, num_samples in (("train", 6000), ("t10k", 100)):  # more than the val_size of the experiments
        labels = np.arange(num_samples, dtype=np.uint8) % 10
        images = random.integers(0, 100, (num_samples, 28, 28), dtype=np.uint8)
        images[np.arange(num_samples), 2 * labels] += 150
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    return folder


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())
