"""A stranger's config.yaml and sweep.yaml say how to train, and not where to write."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONF
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runwright.config.errors import InputError
from runwright.rundir.trust import check_objects, is_plain, read_config
from runwright.sweeps.names import may_be_repeated, read_command

NOWHERE = [
    "",
    "val_loss",
    "norm/all",
    "best-{epoch:03d}",
    "16-mixed",
    "00:12:00",
    "a.b",
    "[a, b]",
    "reduce-overhead",
    "λ",
]
SOMEWHERE = [
    "/",
    "/abs",
    "~",
    "~/x",
    "a/../b",
    "..",
    "a//b",
    "s3://b",
    "$HOME",
    "a/$X",
    "file:/x",
    "a::b",
    "a\\b",
    "a\nb",
    "\0",
]


@pytest.mark.parametrize("text", NOWHERE)
def test_words_that_lead_nowhere(text):
    assert is_plain(text)


@pytest.mark.parametrize("text", SOMEWHERE)
def test_words_that_may_lead_somewhere(text):
    assert not is_plain(text)


CHOICES = [
    f"{group}={path.stem}"
    for group in ("optimizer", "scheduler", "callbacks", "logger", "trainer", "task", "experiment", "debug")
    for path in sorted((CONF / group).glob("*.yaml"))
]


def recorded(folder: Path, *overrides: str) -> Path:
    """A run directory with its config.yaml alone."""
    fixed = ["name=x", "hydra.job.num=0", "+model.sample_shape=[4]", "+model.num_outputs=3", "hydra.mode=RUN"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*overrides, *(each for each in fixed if not each.startswith("hydra"))])
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    return folder


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_ours_can_be_trained_again_from_its_record(tmp_path, choice):
    group, _, name = choice.partition("=")
    lists = (
        f"callbacks=[default,{name}]" if group == "callbacks" and name not in ("default", "no_validation") else choice
    )
    run_dir = recorded(tmp_path / "run", lists)
    check_objects(run_dir, read_config(run_dir, CONF, to_train=True), CONF, to_train=True)


PLACES = {
    "callbacks.best_checkpoint.dirpath": "elsewhere",
    "callbacks.best_checkpoint.filename": "/abs/x",
    "logger.tensorboard.name": "/abs",
    "logger.tensorboard.version": "a/../../b",
    "logger.tensorboard.sub_dir": "elsewhere",
    "logger.tensorboard.save_dir": "elsewhere",
    "logger.tensorboard.filename_suffix": "x",
    "logger.tensorboard.prefix": "$HOME",
    "logger.tensorboard.log_dir": "elsewhere",
    "scheduler.path": "/abs",
    "trainer.default_root_dir": "~/x",
    "trainer.profiler": "s3://b",
    "optimizer.x": ["a", "/abs"],
    "callbacks.best_checkpoint.x": {"deep": [{"dirpath": "elsewhere"}]},
}


@pytest.mark.parametrize("key", PLACES)
def test_a_recorded_place_is_refused(tmp_path, key):
    run_dir = recorded(tmp_path / "run")
    content = yaml.safe_load((run_dir / "config.yaml").read_text())
    *path, last = key.split(".")
    node: Any = content
    for name in path:
        node = node[name]
    node[last] = PLACES[key]
    (run_dir / "config.yaml").write_text(yaml.safe_dump(content))
    read_config(run_dir, CONF)  # none of it is built where a run is only looked at
    with pytest.raises(InputError, match="only into its own directory"):
        read_config(run_dir, CONF, to_train=True)


def test_a_library_behind_a_name_of_the_projects_is_still_the_librarys(tmp_path, own_conf):
    run_dir = recorded(tmp_path / "run")
    content = yaml.safe_load((run_dir / "config.yaml").read_text())
    place = {"_target_": "own_parts.ModelCheckpoint", "dirpath": "elsewhere"}
    content["callbacks"]["mine"] = place
    (run_dir / "config.yaml").write_text(yaml.safe_dump(content))
    cfg = read_config(run_dir, own_conf, to_train=True)
    with pytest.raises(InputError, match="only into its own directory"):
        check_objects(run_dir, cfg, own_conf, to_train=True)


@pytest.mark.parametrize("value", ["a word", "norm/all", 3, None])
def test_a_class_of_the_projects_own_may_be_told_anything_plain(tmp_path, own_conf, value):
    run_dir = recorded(tmp_path / "run")
    content = yaml.safe_load((run_dir / "config.yaml").read_text())
    content["callbacks"]["mine"] = {"_target_": "own_parts.FocalLoss", "gamma": value}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(content))
    check_objects(run_dir, read_config(run_dir, own_conf, to_train=True), own_conf, to_train=True)


REPEATED = [
    "seed=1,2,3",
    "seed=range(3)",
    "seed=null",
    "optimizer=sgd,adam",
    "optimizer=glob(*)",
    "callbacks=[default,ema]",
    "experiment=mnist_sgd",
    "+experiment=mnist_sgd",
    "name=mine",
    "monitor=norm/all",
    "optimizer.lr=choice(0.1,0.2)",
    "optimizer.lr=tag(log,interval(0.001,1))",
    "model.hidden=[10,10],[20]",
    "data.root=/data/mnist",
    "data.root='/data/with space'",
    "model.activation=relu,tanh",
    "+model.x={a: 1}",
    "++optimizer.amsgrad=true",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "+trainer.profiler=simple",
    "trainer.max_time=00:01:00",
    "callbacks.early_stopping.patience=3",
    "callbacks.early_stopping.monitor=val_acc",
    "'callbacks.best_checkpoint.filename=\"{epoch}\"'".strip("'"),
    "callbacks.best_checkpoint.dirpath=null",
    "logger=csv",
    "logger.tensorboard.log_graph=true",
    "~callbacks.confusion",
    "init_from=/data/run",
    "init_from='/data/2026=x/run'",
    "hydra/launcher=joblib",
    "hydra/sweeper=optuna",
    "hydra.launcher.n_jobs=4",
    "hydra.launcher.partition=gpu",
    "hydra.sweeper.num_trials=30",
    "hydra.sweeper.sampler.seed=3",
    "hydra.sweeper.pruner=null",
    "+hydra.sweeper.params.optimizer.lr='interval(0.1,1)'",
    "hydra.sweep.dir=anywhere",
]
NOT_REPEATED = [
    "logger.tensorboard.name=/abs",
    "+logger.tensorboard.sub_dir=x",
    "++logger.tensorboard.save_dir=x",
    "logger.tensorboard.version=a,..",
    "logger={tensorboard: {name: /abs}}",
    "+logger.tensorboard={sub_dir: x}",
    "logger.tensorboard.name=choice(a,/abs)",
    "+callbacks.best_checkpoint.dirpath=x",
    "callbacks.best_checkpoint={dirpath: x}",
    "callbacks.best_checkpoint.filename=../x",
    "+callbacks.mine={_target_: os.system}",
    "+callbacks.mine._target_=os.system",
    "model.loss={a: [{_target_: os.system}]}",
    "model={_target_: os.system}",
    "data._args_=[1]",
    "data.root=${oc.env:HOME}",
    "data.root='${oc.env:HOME}'",
    "data.root=[1,{a: '${oc.env:HOME}'}]",
    "name=../x",
    "name=/abs",
    "trainer.default_root_dir=/abs",
    "+trainer.plugins._target_=x",
    "scheduler.path=~/x",
    "experiment=../../theirs",
    "experiment=/abs/theirs",
    "callbacks@logger=default",
    "+callbacks@callbacks.x=default",
    "hydra/job_logging=mine",
    "hydra/launcher=/abs",
    "hydra.searchpath=[file:///tmp]",
    "hydra.run.dir=/abs",
    "hydra.sweep.subdir=/abs",
    "hydra.job.chdir=true",
    "hydra={run: {dir: /abs}}",
    "hydra.launcher.setup=[reboot]",
    "hydra.launcher.partition=/abs",
    "hydra.launcher={setup: [reboot]}",
    "hydra.sweeper.storage=sqlite:///abs",
    "hydra.sweeper.sampler._target_=os.system",
    "+hydra.sweeper.params.logger.tensorboard.name=/abs",
    "+hydra.sweeper.params.logger.tensorboard.name='choice(/abs,b)'",
    "+hydra.sweeper.params={'logger.tensorboard.name': /abs}",
    "hydra.sweeper={params: {'callbacks.mine._target_': os.system}}",
    "+hydra.callbacks.mine.x=1",
    "~hydra.job_logging",
    "=",
    "",
    "a b",
    "x=[1",
]


@pytest.mark.parametrize("override", REPEATED)
def test_what_a_sweep_is_resumed_with(tmp_path, override):
    (tmp_path / "sweep.yaml").write_text(json.dumps({"config_name": None, "overrides": [override, "from=/a=b"]}))
    assert read_command(tmp_path)[1] == [*([] if "sweep.dir" in override else [override]), "from=/a=b"]


@pytest.mark.parametrize("override", NOT_REPEATED)
def test_what_no_sweep_is_resumed_with(tmp_path, override):
    assert not may_be_repeated(override)
    (tmp_path / "sweep.yaml").write_text(json.dumps({"config_name": None, "overrides": ["seed=1,2", override]}))
    with pytest.raises(InputError, match="not taken from a file"):
        read_command(tmp_path)
