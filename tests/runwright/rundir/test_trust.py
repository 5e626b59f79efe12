"""A stranger's run directory builds what it may and runs nothing else."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONF, PACKAGE, SCRIPT, archive

from runwright.config.errors import InputError
from runwright.rundir.checkpoint import seal
from runwright.rundir.trust import check_objects, read_config

MARK = "was_here"  # a file that hostile content would make


@pytest.fixture
def stranger(made: Path, tmp_path: Path):
    """Writes a copy whose config.yaml was changed: `stranger("model.activation", value)`."""

    def change(key: str, value: object) -> Path:
        content = yaml.load((made / "config.yaml").read_text(), Loader=yaml.CSafeLoader)
        *path, last = key.split(".")
        node = content
        for name in path:
            node = node[name]
        node[last] = value
        run_dir = tmp_path / "stranger"
        run_dir.mkdir(exist_ok=True)
        (run_dir / "config.yaml").write_text(yaml.dump(content, Dumper=yaml.CSafeDumper))
        return run_dir

    return change


def judge(run_dir: Path, conf: Path, to_train: bool = False) -> None:
    check_objects(run_dir, read_config(run_dir, conf, to_train), conf, to_train)


@pytest.mark.parametrize("to_train", [False, True])
def test_a_recorded_run_of_this_project_is_trusted(made, to_train):
    judge(made, CONF, to_train)


HOSTILE = {
    "a function of a library": "torch.load",
    "a function of a trusted package": "torch.nn.functional.relu",
    "a function of a listed package": "toy.make_run",
    "a function that may be called elsewhere": "own_parts.read",
    "a method of a trusted class": "torch.nn.Linear.to",
    "another package": "os.system",
    "another package's class": "subprocess.Popen",
    "another's class under our name": "own_parts.Path",
    "a module that a trusted one imports": "own_parts.gzip.open",
    "torch behind a trusted name": "torch.nn.modules.module.torch.load",
    "a package behind an alias": "torchmetrics.utilities.imports.os.system",
    "another behind an alias": "lightning.pytorch.loggers.wandb.os.system",
    "a dunder": "torch.nn.Module.__subclasses__",
    "a private class": "torch.nn.modules.batchnorm._NormBase",
    "what runs": "runwright.launch.application.run",
    "a class of runs": "runwright.launch.application.DropConfigs",
    "what instantiates": "hydra.utils.instantiate",
    "what finds a function": "hydra.utils.get_method",
    "what reads a configuration": "omegaconf.OmegaConf.load",
    "what reads pickles": "numpy.load",
    "what loads libraries": "ctypes.CDLL",
    "what imports": "importlib.import_module",
    "a trainer in the wrong place": "lightning.Trainer",
    "a logger in the wrong place": "lightning.pytorch.loggers.CSVLogger",
    "a module": "torch.nn",
    "nothing": "torch.nn.NoSuchThing",
    "a prefix that is none": "torch.nnx.Linear",
    "empty": "",
    "a number": 3,
    "a list": ["os.system"],
    "a mapping": {"_target_": "os.system"},
    "a metric that loads models": "torchmetrics.multimodal.CLIPScore",
    "a builtin": "builtins.eval",
    "a relative name": "..os.system",
    "an interpolation": "os.${x}",
    "a line of its own": "torch.nn.Linear\nos.system",
}


PLACES = (
    *("model._target_", "model._args_", "model.hidden"),
    *("task.loss._target_", "task.metrics.acc.more", "data.augment"),
)


@pytest.mark.parametrize("target", HOSTILE.values(), ids=HOSTILE)
def test_what_may_not_be_built_is_refused_wherever_it_stands(stranger, own_conf, target):
    value = {"_target_": target, "_args_": ["true"], "_partial_": True, "_recursive_": False}
    forms = {"_target_": target, "hidden": [value], "more": {"a": [{"b": value}]}, "_args_": [[value]]}
    for place in PLACES:
        run_dir = stranger(place, forms.get(place.rpartition(".")[2], value))
        for to_train in (False, True):
            with pytest.raises(InputError, match=r"not a class that a recorded run may be built of|no interpolations"):
                judge(run_dir, own_conf, to_train)


def test_a_function_of_a_listed_module_may_be_called_outside_of_the_parts(stranger, own_conf):
    judge(stranger("scheduler.factory", {"_target_": "own_parts.read"}), own_conf, to_train=True)
    with pytest.raises(InputError):
        judge(stranger("scheduler.factory", {"_target_": "toy.make_run"}), own_conf, to_train=True)


WRITING = [
    "lightning.pytorch.callbacks.SpikeDetection",
    "lightning.pytorch.callbacks.OnExceptionCheckpoint",
    "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.ModelPruning",
    "lightning.pytorch.loggers.WandbLogger",
    "lightning.pytorch.loggers.csv_logs.ExperimentWriter",
    "lightning.pytorch.profilers.AdvancedProfiler",
    "torch.utils.tensorboard.SummaryWriter",
    "runwright.training.record.start",
    "os.system",
]


@pytest.mark.parametrize("target", WRITING)
def test_training_from_a_run_judges_all_of_it(stranger, own_conf, target):
    for key in ("optimizer", "scheduler.factory", "callbacks.x", "logger.x", "trainer.plugins", "x"):
        run_dir = stranger(key, {"_target_": target, "x": "true"})
        judge(run_dir, own_conf)  # none of it is built where a run is only reopened
        with pytest.raises(InputError):
            judge(run_dir, own_conf, to_train=True)


def test_a_name_is_judged_before_anything_is_imported(stranger, own_conf, tmp_path, monkeypatch):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / MARK)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("hostile.Model", "torch.nn.hostile", "own_parts.__main__", "torch.nn.__main__.x"):
        with pytest.raises(InputError):
            judge(stranger("model._target_", name), own_conf, to_train=True)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${oc.decode:x}", "a ${.b}", "${hydra:runtime.cwd}", "${x"])
@pytest.mark.parametrize("key", ["name", "data.root", "model.activation"])
def test_interpolations_are_refused_unresolved(stranger, key, value):
    with pytest.raises(InputError) as caught:
        read_config(stranger(key, value), CONF)
    assert value in str(caught.value)
    assert os.environ["HOME"] not in str(caught.value).replace(str(stranger(key, value)), "")


@pytest.mark.parametrize("key", ["defaults", "hydra"])
def test_what_steers_hydra_is_refused(stranger, key):
    with pytest.raises(InputError, match=key):
        read_config(stranger(key, {"run": {"dir": "/tmp"}}), CONF)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks.last_checkpoint.dirpath", "/tmp/elsewhere"),
        ("callbacks.last_checkpoint.dirpath", "~/elsewhere"),
        ("callbacks.last_checkpoint.dirpath", "elsewhere"),
        ("callbacks.last_checkpoint._args_", ["elsewhere"]),
        ("callbacks.last_checkpoint.filename", "../../elsewhere"),
        ("scheduler.path", "/tmp/elsewhere"),
        ("logger.tensorboard.name", "../../elsewhere"),
        ("trainer.default_root_dir", "s3://bucket"),
        ("name", "../elsewhere"),
        ("name", "/tmp/elsewhere"),
        ("name", "~"),
        ("name", None),
    ],
)
def test_a_recorded_run_writes_into_its_own_directory_alone(stranger, key, value):
    run_dir = stranger(key, value)
    read_config(run_dir, CONF)
    with pytest.raises(InputError, match=r"its own directory|name="):
        read_config(run_dir, CONF, to_train=True)


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
    "pairs": b"data: {}\nmodel: {a: !!pairs [x: '${other}']}\ntask: {}\nother: {_target_: os.system}\n",
    "an ordered mapping": b"data: {a: !!omap [x: {_target_: os.system, _args_: ['true']}]}\nmodel: {}\ntask: {}\n",
    "a set": b"data: {a: !!set {'${oc.env:HOME}'}}\nmodel: {}\ntask: {}\n",
    "a tag of nothing": b"data: {a: ! x}\nmodel: {}\ntask: {}\n",
    "a name of Python's": b"data: {a: !!python/name:os.system ''}\nmodel: {}\ntask: {}\n",
    "a merge": b"data: &d {}\nmodel: {<<: *d}\ntask: {}\n",
    "a key that is a list": b"data: {? [a] : 1}\nmodel: {}\ntask: {}\n",
    "a number without end": b"data: {a: 1e999999999}\nmodel: {}\ntask: {_target_: 1}\n",
    "two documents": b"data: {}\nmodel: {}\ntask: {}\n---\nhydra: {}\n",
    "UTF-16": "data: {}\nmodel: {}\ntask: {_target_: os.system}\n".encode("utf-16"),
    "a date": b"data: {a: 2026-01-01}\nmodel: {}\ntask: {}\n",
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_config_that_is_none_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_config(tmp_path, CONF)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["\x1b[2J", "\x1b]0;title\x07", "\r", "\x9b31m", "\u202e"])
@pytest.mark.parametrize("key", ["model._target_", "name"])
def test_a_sentence_does_not_speak_to_the_terminal(cli, stranger, key, text):
    result = cli(stranger(key, f"${{x{text}"), script="evaluate")
    assert result.status == 2
    assert text not in result.err


class Hostile:
    """A pickle that makes a file when it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path(MARK),))


def other_zip(**files: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return seal(buffer.getvalue())


def torchscript() -> bytes:
    buffer = BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), buffer)
    return seal(buffer.getvalue())


WEIGHT = "model.output.weight"
CHECKPOINTS = {  # of which none is one
    "a pickle": lambda: pickle.dumps(Hostile()),
    "a sealed pickle": lambda: archive({"state_dict": {WEIGHT: Hostile()}, "epoch": 1, "global_step": 1}),
    "a pickle in the place of all": lambda: archive(Hostile()),
    "a module": lambda: archive(torch.nn.Linear(1, 1)),
    "a class": lambda: archive({"state_dict": {WEIGHT: Path}}),
    "a builtin": lambda: archive({"state_dict": {WEIGHT: eval}}),
    "TorchScript": torchscript,
    "a bare pickle in a zip": lambda: other_zip(archive__data_DOT_pkl=pickle.dumps(Hostile()), archive__version=b"3"),
    "names that lead out": lambda: other_zip(**{"_DOT__DOT___" + MARK: b"x"}),
    "an empty zip": other_zip,
    "no tensors": lambda: archive({"state_dict": {WEIGHT: [1.0]}, "epoch": 1, "global_step": 1}),
    "no weights": lambda: archive({"epoch": 1, "global_step": 1}),
    "a list": lambda: archive([1]),
    "a tensor": lambda: archive(torch.zeros(3)),
    "weights of another shape": lambda: archive({"state_dict": {WEIGHT: torch.zeros(1)}, "epoch": 1, "global_step": 1}),
    "nothing": lambda: b"",
    "text": lambda: b"hello",
}


@pytest.fixture
def whole(made, tmp_path):
    """A copy that can be reopened."""
    return Path(shutil.copytree(made, tmp_path / "stranger"))


@pytest.fixture
def run_with(whole):
    """The same with this as its last checkpoint."""

    def make(content: bytes) -> Path:
        (whole / "checkpoints" / "last.ckpt").write_bytes(content)
        return whole

    return make


@pytest.mark.parametrize("content", CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_a_checkpoint_that_is_none_is_refused_and_nothing_of_it_runs(cli, run_with, tmp_path, content):
    run_dir = run_with(content())
    result = cli(run_dir, script="evaluate")
    assert result.status == 2, result.err
    assert len(result.err.splitlines()) == 1
    assert str(run_dir / "checkpoints" / "last.ckpt") in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stranger"]


@pytest.mark.parametrize("script", ["predict", "export", "init_from", "resume"])
def test_nothing_of_a_hostile_pickle_runs(cli, run_with, tmp_path, script):
    run_dir = run_with(CHECKPOINTS["a sealed pickle"]())
    (tmp_path / "x.csv").write_text("1,2,3,4\n")
    if script == "resume":
        result = cli(f"resume={run_dir}")  # which starts from the beginning
    elif script == "init_from":
        result = cli(f"init_from={run_dir}")
    else:
        more = {"predict": ["--input", "x.csv", "--output", "y.csv"], "export": ["--format", "torchscript"]}
        result = cli(run_dir, *more[script], script=script)
    assert result.status == (0 if script == "resume" else 2)
    assert "last.ckpt" in result.out + result.err
    assert not (tmp_path / MARK).exists()


def test_what_else_lies_in_the_directory_is_not_read(cli, whole, tmp_path):
    code = f"from pathlib import Path; Path({str(tmp_path / MARK)!r}).touch()"
    call = f"!!python/object/apply:os.system ['touch {tmp_path / MARK}']\n"
    modules = ("sitecustomize.py", "torch.py", f"{PACKAGE}/__init__.py", "conf/train.py", "hubconf.py", "conftest.py")
    configs = ("hparams.yaml", ".hydra/config.yaml", "conf/train.yaml", "checkpoints/hparams.yaml")
    for name, content in (dict.fromkeys(modules, code) | dict.fromkeys(configs, call)).items():
        (whole / name).parent.mkdir(exist_ok=True)
        (whole / name).write_text(content)
    os.chdir(whole)
    for args, script in ((["."], "evaluate"), ([".", "--format", "torchscript"], "export")):
        result = cli(*args, script=script)
        assert result.status == 0, result.err
        assert "test_acc" in result.out if script == "evaluate" else Path("export/model.pt").is_file()
    assert not (tmp_path / MARK).exists()


def test_nothing_is_started_and_nobody_called(whole):
    """In a process of its own, for no audit hook can be removed."""
    code = f"""
import runpy, sys
import runwright.reopen.run  # what it imports may start what it likes
seen = set()
sys.addaudithook(lambda event, args: seen.add(event))
sys.argv = ["evaluate.py", {str(whole)!r}]
runpy.run_path({str(SCRIPT.with_stem("evaluate"))!r}, run_name="__main__")
print(*seen, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"test_loss", "test_acc"}
    seen = set(done.stderr.split())
    assert "open" in seen
    assert not {"os.system", "os.exec", "os.fork", "subprocess.Popen", "socket.connect", "pickle.find_class"} & seen


@pytest.mark.parametrize(
    "link", ["export", "export/model.md", "export/model.pt", "export/model.pt.partial", "train.log"]
)
def test_what_is_written_into_a_run_directory_stays_there(cli, whole, tmp_path, link):
    mine = tmp_path / "mine"
    if link == "export":
        mine.mkdir()
    else:
        mine.write_text("mine")
        (whole / link).parent.mkdir(exist_ok=True)
    (whole / link).symlink_to(mine)
    for args, script in (([whole, "--format", "torchscript"], "export"), ([f"resume={whole}"], "train")):
        result = cli(*args, script=script)
        assert result.status == 2
        assert f"{whole / link}: a link" in result.err
    output = tmp_path / "own" / "model.pt"
    output.parent.mkdir()
    output.with_name("model.pt.partial").symlink_to(mine)
    assert cli(whole, "--format", "torchscript", "--output", output, script="export").status == 0
    assert not list(mine.iterdir()) if mine.is_dir() else mine.read_text() == "mine"


@pytest.mark.parametrize("door", ["from", "resume"])
def test_a_hostile_config_is_refused_before_it_is_composed(cli, stranger, tmp_path, door):
    hostile = {"_target_": "pathlib.Path.touch", "_args_": [MARK]}
    for key in ("hydra", "callbacks.hostile", "model", "data.augment"):
        run_dir = stranger(key, {"callbacks": {"x": hostile}} if key == "hydra" else hostile)
        result = cli(f"{door}={run_dir}", "trainer.max_epochs=1")
        assert result.status == 2
        assert 1 <= len(result.err.splitlines()) <= 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stranger"]
