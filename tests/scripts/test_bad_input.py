"""Bad input costs the user a sentence: what is wrong, where, and what to do; and leaves nothing behind."""

import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result, class_of, write_idx

# command -> what stderr says, among other things. FILES stands for a folder of broken data files.
COMMAND_LINE = {
    "optimizer.lr": ["optimizer.lr: not key=value"],
    "model.hidden=[200": ["model.hidden=[200: not key=value; a list is written [a,b]"],
    "optimizer.lr==3": ["optimizer.lr==3: not key=value"],
    "from=nowhere": ["from=nowhere", "no config.yaml"],
    "from=": ["from=", "no config.yaml"],
    "from=keep": ["from=keep", "no config.yaml"],
    "optimizer.lr=0.1,0.2": ["optimizer.lr=0.1,0.2", "--multirun", "optimizer.lr=[0.1,0.2]"],
    "--foo": ["--foo", "no such flag"],
    "=3": ["=3: not key=value"],
}
CHOICES = {
    "optimizer=sgdm": ["optimizer=sgdm", "did you mean sgd_momentum", "choices of optimizer: ", "adamw"],
    "scheduler=cos": ["scheduler=cos", "cosine"],
    "data=cifar": ["data=cifar", "digits", "fashion_mnist"],
    "model=3": ["model=3", "mlp"],
    "callbacks=[default,earlystopping]": ["callbacks=earlystopping", "did you mean early_stopping?"],
    "experiment=mnist_sdg": ["experiment=mnist_sdg", "did you mean mnist_sgd"],
    "sweep=digit_schedules": ["sweep=digit_schedules", "did you mean digits_schedules?"],
    "-m optimizer=sgd,sgdm": ["optimizer=sgdm", "sgd_momentum"],
    "experiment=null": ["experiment=null", "~experiment"],
    "~model": ["model"],
}
KEYS = {
    "optimiser=adam": ["optimiser=adam", "did you mean optimizer?"],
    "trainer.max_epoch=3": ["trainer.max_epoch=3", "did you mean max_epochs", "keys of trainer: "],
    "optimizer.momentm=0.5": ["optimizer.momentm=0.5", "did you mean momentum?"],
    "optimizer=sgd optimizer.momentum=0.9": ["optimizer.momentum=0.9", "keys of optimizer: lr"],
    "lr=0.1": ["lr=0.1", "no key lr", "optimizer"],
    "+optimizer.foo=3": ["optimizer.foo=3", "unexpected keyword argument"],
    "-m optimizer=sgd,adam optimizer.momentum=0.9": ["optimizer.momentum=0.9", "no key"],
}
KINDS = {
    "trainer.max_epochs=ten": ["trainer.max_epochs=ten", "a number (now 20)"],
    "optimizer.lr=abc": ["optimizer.lr=abc", "a number (now 0.05)"],
    "optimizer.lr=": ["optimizer.lr=", "a number"],
    "model.hidden=200": ["model.hidden=200", "a list", "write model.hidden=[200]"],
    "model.dropout=high": ["model.dropout=high", "a number"],
    "test=maybe": ["test=maybe", "true or false"],
    "compile=3": ["compile=3: this takes a string (now null), not a number"],
    "compile=quick": ["compile=quick: Unrecognized mode=quick, should be one of: default"],
    "seed=abc": ["seed=abc", "a number"],
    "seed=true": ["seed=true", "a number"],
    "monitor=[a]": ["monitor=[a]", "a string"],
    "-m optimizer.lr=0.1,abc": ["optimizer.lr=abc", "a number"],
    "optimizer.lr=null": ["optimizer.lr=null"],
    "optimizer.lr=nan": ["optimizer.lr=nan"],
    "optimizer.lr=${foo}": ["optimizer.lr=${foo}", "not found"],
    "monitor=5": ["monitor=5"],
    "name=null": ["name=null", "runs/"],
    "name=": ["name="],
    "name=../elsewhere": ["name=../elsewhere"],
    "debug=typo": ["debug=typo", "choices of debug"],
    "callbacks.early_stopping.patience=null": ["callbacks.early_stopping.patience=null", "a number"],
}
RANGES = {
    "optimizer.lr=-1": ["optimizer.lr=-1"],
    "optimizer.weight_decay=-1": ["optimizer.weight_decay=-1"],
    "optimizer.momentum=-0.5": ["optimizer.momentum=-0.5"],
    "optimizer=nesterov optimizer.momentum=0": ["optimizer.momentum=0", "requires a momentum"],
    "model.dropout=1.5": ["model.dropout=1.5", "[0, 1)"],
    "model.dropout=-0.1": ["model.dropout=-0.1", "[0, 1)"],
    "model.input_dropout=1": ["model.input_dropout=1", "[0, 1)"],
    "model.hidden=[0]": ["model.hidden=[0]", "at least 1"],
    "model.hidden=[200,abc]": ["model.hidden=[200,abc]", "at least 1"],
    "model.activation=swish": ["model.activation=swish", "relu"],
    "model.init=xavier": ["model.init=xavier", "glorot_uniform"],
    "data.batch_size=0": ["data.batch_size=0", "at least 1"],
    "data.batch_size=2.5": ["data.batch_size=2.5", "whole number"],
    "data.val_size=-1": ["data.val_size=-1", "a fraction below 1, a count, or 0"],
    "data.val_size=1.5": ["data.val_size=1.5", "a fraction below 1, a count, or 0"],
    "data.fold=10": ["data.fold=10", "from 0 to 9"],
    "data.num_folds=1": ["data.num_folds=1", "at least 2"],
    "data.normalize=[0,0]": ["data.normalize=[0,0]", "std above 0"],
    "scheduler=step scheduler.step_size=0": ["scheduler.step_size=0", "at least 1"],
    "scheduler=plateau scheduler.patience=-1": ["scheduler.patience=-1", "at least 0"],
    "scheduler=one_cycle scheduler.pct_start=2": ["scheduler.pct_start=2", "between 0 and 1"],
    "scheduler.interval=batch": ["scheduler.interval=batch", "epoch or step"],
    "mode=down": ["mode=down", "min or max"],
    "trainer.devices=4096": ["trainer.devices=4096", "CPU cores"],
    "trainer.accelerator=quantum": ["trainer.accelerator=quantum", "cpu"],
    "trainer.precision=8": ["trainer.precision=8", "32-true"],
    "trainer.max_epochs=-2": ["trainer.max_epochs=-2", "at least -1"],
    "trainer.max_epochs=1.5": ["trainer.max_epochs=1.5", "whole number"],
    "trainer.max_epochs=0": ["trainer.max_epochs=0", "at least 1"],
    "trainer.max_steps=0": ["trainer.max_steps=0", "at least 1"],
    "trainer.max_steps=-5": ["trainer.max_steps=-5", "at least -1"],
    "trainer.max_time=5": ["trainer.max_time=5", "a string or a mapping"],
    "trainer.profiler=1": ["trainer.profiler=1", "a string"],
    "trainer.fast_dev_run=0.5": ["trainer.fast_dev_run=0.5", "whole number"],
    "trainer.num_sanity_val_steps=[]": ["trainer.num_sanity_val_steps=[]"],
    "trainer.limit_val_batches=-1": ["trainer.limit_val_batches=-1", "at least 0"],
    "callbacks.early_stopping.min_delta=[0.5]": ["callbacks.early_stopping.min_delta=[0.5]", "a number"],
    "callbacks.best_checkpoint.save_top_k=-0.5": ["callbacks.best_checkpoint.save_top_k=-0.5", "whole number"],
    "scheduler=plateau scheduler.threshold=[]": ["scheduler.threshold=[]", "a number"],
    "optimizer.weight_decay=1e+300": ["optimizer.weight_decay=1e+300", "too large"],
    "data.eval_batch_size=1000000000000000000000": ["data.eval_batch_size=1000000000000000000000", "too large"],
    "model.hidden=[1000000000000000]": ["model"],
    "trainer.max_time=abc": ["trainer.max_time=abc", "DD:HH:MM:SS"],
    "trainer.log_every_n_steps=0": ["trainer.log_every_n_steps=0", "at least 1"],
    "trainer.limit_train_batches=1.5": ["trainer.limit_train_batches=1.5", "[0.0, 1.0]"],
    "callbacks.early_stopping.patience=-1": ["callbacks.early_stopping.patience=-1", "at least 0"],
    "callbacks.weight_norm.every_n_steps=0": ["callbacks.weight_norm.every_n_steps=0", "at least 1"],
    "seed=-1": ["seed=-1", "at least 0"],
    "task.param_groups=[{pattern:foo,lr:0.1}]": ["task", "'foo'", "hidden_0.weight"],
    "-m optimizer.lr=0.1,-1": ["optimizer.lr=-1"],
    "-m seed=1,2 hydra.sweeper.max_batch_size=x": ["max_batch_size must be null or a whole number", "got x"],
    "-m model.dropout=0.1,1.5 seed=1,2": ["model.dropout=1.5", "[0, 1)"],
    "optimizer=adam optimizer.betas=[0.9,1.5]": ["optimizer.betas=[0.9,1.5]"],
    "optimizer=adam optimizer.betas=[0.9]": ["optimizer.betas=[0.9]"],
    "model.hidden=null": ["model.hidden=null"],
    "model.dropout=[0.1,0.2,0.3]": ["model.dropout=[0.1,0.2,0.3]", "one per hidden layer (2)"],
    "data.augment=flip": ["data.augment=flip"],
    "scheduler=step scheduler.step_size=1.5": ["scheduler.step_size=1.5"],
    "scheduler=plateau scheduler.factor=1.5": ["scheduler.factor=1.5"],
    "scheduler=one_cycle scheduler.max_lr=-1": ["scheduler.max_lr=-1"],
    "seed=1.5": ["seed=1.5"],
    "task.decay=some": ["task.decay=some", "weights"],
    "task.param_groups=[{lr:0.1}]": ["task.param_groups", "pattern"],
    "task.param_groups=[{pattern:output,lr:-1}]": ["task.param_groups", "-1"],
    "task.loss.label_smoothing=2": ["task.loss.label_smoothing=2"],
    "trainer.gradient_clip_val=-1": ["trainer.gradient_clip_val=-1"],
    "trainer.limit_train_batches=0": ["trainer.limit_train_batches=0"],
    "callbacks=[default,max_norm] callbacks.max_norm.pattern=foo": ["callbacks.max_norm.pattern=foo", "hidden_0"],
    "scheduler=cosine trainer.max_epochs=-1": ["scheduler", "trainer.max_epochs"],
    "trainer=clip_gradients trainer.precision=bf16-mixed": ["optimizer.fused=true", "optimizer.fused=false"],
    "task.param_groups=[{pattern:output,learning_rate:0.1}]": ["task.param_groups", "no learning_rate"],
    "compile=default logger.tensorboard.log_graph=true": ["logger.tensorboard.log_graph=true", "compile=default"],
    "optimizer.lr=inf": ["optimizer.lr=inf", "finite"],
}
BEFORE_THE_FIRST_STEP = {
    "data.val_size=70000": ["data.val_size=70000", "1,438"],
    "data.test_size=5000": ["data.test_size=5000", "1,797"],
    "data.batch_size=100000": ["data.batch_size=100000", "1,294 samples"],
    "data.num_folds=2000 data.fold=0": ["data.num_folds=2000", "1797"],
    "data=linear": ["task.metrics.acc.num_classes=1", "larger than 1"],
    "task=regression": ["task.loss: MSELoss", "classes"],
    "data=linear task=classification model.hidden=[3]": ["num_classes=1"],
    "init_from=nowhere": ["init_from=nowhere: no checkpoints"],
    "init_from=keep": ["keep", "no checkpoints"],
    "monitor=val_los": ["monitor=val_los", "train_loss, val_acc, val_loss"],
    "monitor=test_acc": ["monitor=test_acc", "val_loss"],
    "scheduler=plateau scheduler.monitor=val_los": ["scheduler.monitor=val_los", "val_loss"],
    "data.val_size=0": ["monitor=val_loss", "data.val_size", "callbacks=no_validation"],
    "data=mnist data.root=FILES/none": ["data.root=", "FILES/none", "t10k-labels-idx1-ubyte"],
    "data=mnist data.root=FILES/truncated": ["FILES/truncated/t10k-images-idx3-ubyte", "truncated"],
    "data=mnist data.root=FILES/not_idx": ["FILES/not_idx/train-labels-idx1-ubyte", "not an IDX file"],
    "data=mnist data.root=FILES/mixed_up": ["FILES/mixed_up", "train files hold", "images"],
    "data=mnist data.root=FILES/bad_label": ["FILES/bad_label", "labels go up to 10", "10 classes"],
    "hydra.run.dir=keep/run": ["keep", "Not a directory"],
    "data.val_size=5": ["data.val_size=5", "10"],
    "scheduler=plateau_per_batch scheduler.monitor=val_loss": ["scheduler.monitor=val_loss"],
    "trainer.limit_val_batches=0": ["monitor=val_loss", "trainer.limit_val_batches=0"],
    "trainer.limit_val_batches=0.5": ["trainer.limit_val_batches=0.5", "of 1 batches leaves none"],
    "task.metrics.acc.average=null": ["task.metrics.acc", "10 elements"],
}
TABLES = {**COMMAND_LINE, **CHOICES, **KEYS, **KINDS, **RANGES, **BEFORE_THE_FIRST_STEP}
# Some of each kind, which go all the way; the others go to what checks the command line and builds the run of it.
ALL_THE_WAY = (
    *("optimizer.lr", "from=keep", "--foo", "optimizer=sgdm", "-m optimizer=sgd,sgdm", "~model", "lr=0.1"),
    *("+optimizer.foo=3", "seed=abc", "optimizer.lr=${foo}", "model.dropout=1.5", "-m optimizer.lr=0.1,-1"),
    *("trainer.devices=4096", "compile=quick", "data.val_size=70000", "monitor=val_los", "hydra.run.dir=keep/run"),
    "data=mnist data.root=FILES/truncated",
)

FAST = ["trainer.max_epochs=1", "trainer.limit_train_batches=2"]  # for what is accepted though it should not be


@pytest.fixture
def keep(tmp_path: Path) -> Path:
    """Something of the user's in the folder."""
    path = tmp_path / "keep"
    path.touch()
    return path


@pytest.fixture(scope="module")
def broken_files(mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    files = tmp_path_factory.mktemp("broken")
    for name in ("truncated", "not_idx", "mixed_up", "bad_label"):
        shutil.copytree(mnist_folder, files / name)
    images = files / "truncated" / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    (files / "not_idx" / "train-labels-idx1-ubyte").write_text("<html>404</html>")
    write_idx(files / "mixed_up" / "train-images-idx3-ubyte", np.zeros((10, 28), np.uint8))
    write_idx(files / "bad_label" / "train-labels-idx1-ubyte", np.full(6000, 10, np.uint8))
    return files


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def arguments(command: str, files: Path) -> list[str]:
    return [
        *command.replace("FILES", str(files)).split(),
        *(each for each in FAST if each.split("=")[0] not in command),
    ]


@pytest.mark.usefixtures("_no_network", "keep")
@pytest.mark.parametrize("command", [command for command in TABLES if command not in ALL_THE_WAY])
def test_bad_input_is_refused(refused: Callable[..., str], broken_files: Path, command: str) -> None:
    said = refused(*arguments(command, broken_files))
    for fragment in TABLES[command]:
        assert fragment.replace("FILES", str(broken_files)) in said


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("command", ALL_THE_WAY)
def test_bad_input(cli: Callable[..., Result], keep: Path, broken_files: Path, command: str) -> None:
    result = cli(*arguments(command, broken_files))
    assert result.status == 2, result.err
    assert 1 <= len(result.err.splitlines()) <= 3, result.err
    assert "Traceback" not in result.err
    for fragment in TABLES[command]:
        assert fragment.replace("FILES", str(broken_files)) in result.err
    assert sorted(keep.parent.rglob("*")) == [keep]


def test_the_folder_itself_is_left_though_it_is_empty(cli: Callable[..., Result], tmp_path: Path) -> None:
    cli("optimizer.lr=-1")
    assert tmp_path.is_dir()


def test_what_only_the_data_can_refuse_fails_its_own_job_of_a_sweep(cli: Callable[..., Result], tmp_path: Path) -> None:
    result = cli("-m", "data.val_size=70000,0.1", *FAST)
    (sweep,) = tmp_path.glob("sweeps/digits/*")
    sentence = "data.val_size=70000: val_size=70000 leaves nothing of the 1,438 samples to train on"
    assert result.status == 1
    assert [run_dir.name for run_dir in result.run_dirs] == ["1-data.val_size=0.1"]
    assert (sweep / "1-data.val_size=0.1" / "metrics.json").is_file()
    assert (sweep / "0-data.val_size=70000" / "error.txt").read_text().startswith(f"{sentence}\n\nTraceback")
    assert "1 of 2 jobs failed" in result.err
    assert result.err.rstrip().endswith(f"{sweep.relative_to(tmp_path)}/0-data.val_size=70000: {sentence}")
    assert "Traceback" not in result.err


def test_an_error_of_the_code_is_shown_in_full_and_recorded(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_of("model", "mlp"), "forward", lambda *_: 1 / 0)
    result = cli(*FAST)
    (run_dir,) = tmp_path.glob("runs/digits/*")
    assert result.status == 1
    assert result.err.rstrip().endswith("ZeroDivisionError: division by zero")
    assert (run_dir / "error.txt").read_text().startswith("ZeroDivisionError: division by zero\n\nTraceback")


@pytest.mark.parametrize("bad", ["optimizer=sgdm", "data.val_size=70000"])
@pytest.mark.parametrize("wish", ["HYDRA_FULL_ERROR", "debug"])
def test_the_traceback_is_shown_on_request(
    cli: Callable[..., Result], keep: Path, monkeypatch: pytest.MonkeyPatch, bad: str, wish: str
) -> None:
    if wish == "HYDRA_FULL_ERROR":
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    result = cli(bad, *(["debug=fast_dev_run"] if wish == "debug" else []))
    assert result.status != 0
    assert "Traceback" in result.err
    assert "InputError: " in result.err
    assert sorted(keep.parent.rglob("*")) == [keep]
