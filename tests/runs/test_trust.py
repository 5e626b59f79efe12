"""A stranger's run directory builds what it may and runs nothing else."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from litmlp.durable import seal
from litmlp.runs.errors import InputError
from litmlp.runs.trust import check_objects, read_config

MARK = "was_here"  # a file that hostile content would make


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run directory as training leaves it, by the shortest way."""
    from conftest import SCRIPT
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(SCRIPT.parents[1] / "conf"), version_base="1.3"):
        cfg = compose(
            "train",
            [
                *("data=iris", "name=iris", "+model.sample_shape=[4]", "+model.num_outputs=3"),
                *("callbacks=no_validation", "monitor=train_loss", "trainer.max_epochs=1"),
            ],
        )
    run_dir = tmp_path_factory.mktemp("made")
    (run_dir / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    return run_dir


@pytest.fixture
def stranger(made: Path, tmp_path: Path):
    """Writes a copy whose config.yaml was changed: `stranger("model.activation", value)`."""

    def change(key: str, value: object) -> Path:
        content = yaml.safe_load((made / "config.yaml").read_text())
        *path, last = key.split(".")
        node = content
        for name in path:
            node = node[name]
        node[last] = value
        run_dir = tmp_path / "stranger"
        run_dir.mkdir(exist_ok=True)
        (run_dir / "config.yaml").write_text(yaml.safe_dump(content))
        return run_dir

    return change


def judge(run_dir: Path, to_train: bool = False) -> None:
    check_objects(run_dir, read_config(run_dir, to_train), to_train)


@pytest.mark.parametrize("to_train", [False, True])
def test_a_recorded_run_of_this_package_is_trusted(made, to_train):
    judge(made, to_train)


HOSTILE = {
    "a function of a library": "torch.load",
    "a function of a trusted package": "torch.nn.functional.relu",
    "a function of this package": "litmlp.data.mnist.read_idx",
    "a method of a trusted class": "torch.nn.Linear.to",
    "another package": "os.system",
    "another package's class": "subprocess.Popen",
    "another's class under our name": "litmlp.data.mnist.Path",
    "a module that a trusted one imports": "litmlp.data.mnist.gzip.open",
    "torch behind a trusted name": "torch.nn.modules.module.torch.load",
    "a dunder": "torch.nn.Module.__subclasses__",
    "what runs": "litmlp.runs.jobs.run",
    "a class of runs": "litmlp.runs.jobs.NoteSweep",
    "a module": "torch.nn",
    "nothing": "torch.nn.NoSuchThing",
    "a prefix that is none": "torch.nnx.Linear",
    "empty": "",
    "a number": 3,
    "a mapping": {"_target_": "os.system"},
    "a metric that loads models": "torchmetrics.multimodal.CLIPScore",
    "a builtin": "builtins.eval",
    "a relative name": "..os.system",
}


@pytest.mark.parametrize("to_train", [False, True])
@pytest.mark.parametrize("place", ["model._target_", "task.loss._target_", "data.augment", "model.hidden"])
@pytest.mark.parametrize("target", HOSTILE.values(), ids=HOSTILE)
def test_what_may_not_be_built_is_refused_wherever_it_stands(stranger, target, place, to_train):
    value = target if place.endswith("_target_") else {"_target_": target, "_args_": ["true"], "_partial_": True}
    run_dir = stranger(place, [value] if place == "model.hidden" else value)
    with pytest.raises(InputError, match="not a class that a recorded run may be built of"):
        judge(run_dir, to_train)


@pytest.mark.parametrize("key", ["optimizer", "callbacks.other", "logger.other", "trainer.plugins", "other"])
def test_training_from_a_run_judges_all_of_it(stranger, key):
    run_dir = stranger(key, {"_target_": "os.system", "_args_": ["true"]})
    judge(run_dir)  # none of it is built where a run is only reopened
    with pytest.raises(InputError):
        judge(run_dir, to_train=True)


def test_a_name_is_judged_before_anything_is_imported(stranger, tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / MARK)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("hostile.Model", "torch.nn.hostile", "litmlp.__main__", "torch.nn.__main__.x"):
        with pytest.raises(InputError):
            judge(stranger("model._target_", name), to_train=True)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${oc.decode:x}", "a ${.b}", "${hydra:runtime.cwd}", "${x"])
@pytest.mark.parametrize("key", ["name", "data.root", "model.activation"])
def test_interpolations_are_refused_unresolved(stranger, key, value):
    with pytest.raises(InputError) as caught:
        read_config(stranger(key, value))
    assert value in str(caught.value)
    assert os.environ["HOME"] not in str(caught.value).replace(str(stranger(key, value)), "")


@pytest.mark.parametrize("key", ["defaults", "hydra"])
def test_what_steers_hydra_is_refused(stranger, key):
    with pytest.raises(InputError, match=key):
        read_config(stranger(key, {"run": {"dir": "/tmp"}}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks.last_checkpoint.dirpath", "/tmp/elsewhere"),
        ("logger.tensorboard.name", "../../elsewhere"),
        ("trainer.default_root_dir", "s3://bucket"),
        ("name", "../elsewhere"),
    ],
)
def test_a_recorded_run_writes_into_its_own_directory_alone(stranger, key, value):
    run_dir = stranger(key, value)
    read_config(run_dir)
    with pytest.raises(InputError, match=r"its own directory|name="):
        read_config(run_dir, to_train=True)


BOMB = "a: &a [x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n"
FILES = {
    "empty": b"",
    "a list": b"- 1\n",
    "a text": b"hello",
    "not UTF-8": b"name: \xff\xfe\n",
    "not YAML": b"a: [1, 2",
    "a tab": b"a:\n\t- 1",
    "no parts": b"name: digits\n",
    "parts that are none": b"data: 1\nmodel: 2\ntask: 3\n",
    "references": BOMB.encode(),
    "a reference to itself": b"a: &a [*a]\n",
    "an object": b"data: !!python/object/apply:os.system ['true']\n",
    "deep": b"a: " + 1000 * b"[" + 1000 * b"]",
    "very deep": b"a: " + 400_000 * b"[",
    "huge": b"a: 1\n" * 300_000,
    "binary": bytes(range(256)),
    "a date": b"data: {a: 2026-01-01}\nmodel: {}\ntask: {}\n",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_config_that_is_none_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_config(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path(MARK),))


@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize("script", ["evaluate", "predict", "export", "init_from", "resume"])
def test_nothing_of_a_hostile_pickle_runs(cli, made, tmp_path, script, is_sealed):
    from io import BytesIO

    run_dir = tmp_path / "stranger"
    shutil.copytree(made, run_dir)
    (run_dir / "checkpoints").mkdir()
    buffer = BytesIO()
    torch.save({"state_dict": {"model.output.weight": Hostile()}, "epoch": 1, "global_step": 1}, buffer)
    content = seal(buffer.getvalue()) if is_sealed else pickle.dumps(Hostile())
    (run_dir / "checkpoints" / "last.ckpt").write_bytes(content)
    (tmp_path / "x.csv").write_text("1,2,3,4\n")
    more = {"predict": ["--input", "x.csv", "--output", "y.csv"], "export": ["--format", "torchscript"]}
    if script == "init_from":
        result = cli(f"init_from={run_dir}", "trainer.fast_dev_run=true")
    elif script == "resume":
        result = cli(f"resume={run_dir}")
    else:
        result = cli(run_dir, *more.get(script, []), script=script)
    assert "Traceback" not in result.err
    assert not (tmp_path / MARK).exists()
    if script != "resume":  # which starts from the beginning
        assert result.status == 2
        assert len(result.err.splitlines()) == 1
        assert "last.ckpt" in result.err


@pytest.mark.parametrize("door", ["from", "resume"])
def test_a_hostile_config_is_refused_before_it_is_composed(cli, stranger, tmp_path, door):
    hostile = {"_target_": "pathlib.Path.touch", "_args_": [MARK]}
    for key in ("hydra", "callbacks.hostile", "model", "data.augment"):
        run_dir = stranger(key, {"callbacks": {"x": hostile}} if key == "hydra" else hostile)
        result = cli(f"{door}={run_dir}", "trainer.max_epochs=1")
        assert result.status == 2
        assert 1 <= len(result.err.splitlines()) <= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stranger"]
