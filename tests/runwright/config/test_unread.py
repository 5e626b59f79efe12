"""Keys that nothing reads, values that are missing, and the same checks for every way to give a value."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import CONF
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from runwright.config.errors import InputError
from runwright.config.keys import COLLECTIONS, PARTS, VALUES
from runwright.config.overrides import check_overrides
from runwright.launch.application import make_plan


@pytest.fixture(autouse=True)
def _no_job() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """What is said of a command line, where experiment=mine holds the text; nothing where it is accepted."""

    def said(text: str, *arguments: str) -> str:
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
        try:
            make_plan(["--config-dir", str(tmp_path), "experiment=mine", *arguments], CONF)
        except InputError as error:
            return str(error)
        return ""

    return said


def test_the_keys_that_a_run_reads_are_those_of_the_default_run() -> None:
    content = yaml.safe_load((CONF / "train.yaml").read_text())
    groups = {key for entry in content.pop("defaults") if isinstance(entry, dict) for key in entry}
    assert set(content) == set(VALUES)
    assert groups - {"experiment", "sweep", "debug", "optional local"} == {*PARTS, *COLLECTIONS}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+lr=0.1", "+lr=0.1: there is no key lr; did you mean optimizer.lr?"),
        ("lr=0.1", "lr=0.1: there is no key lr; did you mean optimizer.lr?"),
        ("++monitr=val_acc", "++monitr=val_acc: there is no key monitr; did you mean monitor?"),
        ("++optimzer.lr=0.1", "++optimzer.lr=0.1: there is no key optimzer.lr; did you mean optimizer?"),
        ("+zzz=1", "+zzz=1: there is no key zzz\n"),
        ("zzz=1", "zzz=1: there is no key zzz\n"),
        (
            "trainer.momentum=1",
            "there is no key trainer.momentum; did you mean optimizer.momentum?",
        ),
        ("optimizer.zzz=1", "no key optimizer.zzz; if torch.optim.SGD takes one, +optimizer.zzz=1 adds it"),
        ("callbacks.zzz=1", "callbacks.zzz=1: there is no key callbacks.zzz\n"),
        ("+optimizer@second=adam", "second: nothing reads this key"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(override: str, sentence: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(InputError) as error:
        check_overrides("train", [override])
    assert sentence in f"{error.value}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("monitr: val_acc", "monitr: nothing reads this key; did you mean monitor?"),
        ("lr: 0.1", "lr: nothing reads this key; did you mean optimizer.lr?"),
        ("optimizer.lr: 0.5", "optimizer.lr: a key with a dot sets nothing"),
        ("callbacks: {early_stopping.patience: 3}", "callbacks.early_stopping.patience: a key with a dot"),
        ("data: {val_size: None}", "data.val_size: None is read as a string"),
        ("experiment: {a: 1}", "experiment: its file must hold keys and values"),
        ("local: {a: 1}", "local: its file must hold keys and values, after the line `# @package _global_`"),
    ],
)
def test_a_key_of_a_file_that_nothing_reads_is_refused(refusal: Callable[..., str], text: str, sentence: str) -> None:
    assert refusal(text).startswith(sentence)
    assert refusal(text, "--cfg", "job").startswith(sentence)


@pytest.mark.parametrize("arguments", [["+width=8", "model.hidden=[${width}]"], ["+trainer.overfit_batches=2"]])
def test_a_key_that_another_value_refers_to_is_read(refusal: Callable[..., str], arguments: list[str]) -> None:
    assert refusal("", *arguments) == ""
    assert refusal("width: 8\nmodel: {hidden: ['${width}']}") == ""
    assert refusal("width: 8", "model.hidden=[${width}]") == ""


@pytest.mark.parametrize("key", VALUES)
def test_what_a_run_reads_cannot_be_deleted(key: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(InputError, match=f"^~{key}: a run reads"):
        check_overrides("train", [f"~{key}"])


@pytest.mark.parametrize(
    ("text", "given", "key"),
    [
        ("optimizer:\n  lr: ???", "optimizer.lr=0.1", "optimizer.lr"),
        ("seed: ???", "seed=3", "seed"),
        ("name: ???", "name=here", "name"),
        ("model:\n  hidden: ???", "model.hidden=[8]", "model.hidden"),
        ("model:\n  widths: ???", "++model.widths=[8]", "model.widths"),
        ("trainer:\n  max_epochs: ???", "-m trainer.max_epochs=1,2", "trainer.max_epochs"),
    ],
)
def test_a_value_left_open_must_be_given(refusal: Callable[..., str], text: str, given: str, key: str) -> None:
    wanted = f"{key}: experiment/mine.yaml leaves its value open (???); give one with {key}=VALUE"
    assert refusal(text) == wanted
    assert refusal(text, "-m", "data.seed=1,2") == wanted
    assert refusal(text, "--cfg", "job") == ""
    if "-m" not in given and "widths" not in given:
        assert refusal(text, *given.split()) == ""
    assert wanted not in refusal(text, *given.split())


def test_a_value_left_open_may_come_from_a_later_file(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "base.yaml").write_text("# @package _global_\noptimizer:\n  lr: ???\n")
    assert refusal("defaults:\n  - base\noptimizer:\n  lr: 0.1") == ""
    assert refusal("defaults:\n  - base") != ""
    assert refusal("optimizer:\n  lr: ???", "experiment=weight_decay") == ""  # another choice, with nothing open


@pytest.mark.parametrize("prefix", ["", "+", "++"])
@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("trainer.max_time=5", "this takes a string or a mapping (now null), not a number"),
        ("optimizer.lr=abc", "this takes a number (now 0.05), not a string"),
        ("compile=3", "this takes a string (now null), not a number"),
        ("seed=-1", "must be a whole number of at least 0"),
        ("data.augment=None", "None is read as a string; write"),
    ],
)
def test_a_prefix_skips_no_check_of_a_value(prefix: str, setting: str, kind: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.raises(InputError) as error:
        check_overrides("train", [prefix + setting])
    assert kind in str(error.value)


def test_a_folder_of_the_users_own_skips_no_check(refusal: Callable[..., str]) -> None:
    assert refusal("", "optimizer.lr=abc").startswith("optimizer.lr=abc: this takes a number")
    assert refusal("optimizer: {lr: 0.5}", "optimizer.lr=abc").startswith(
        "optimizer.lr=abc: this takes a number (now 0.5)"
    )
    assert refusal("", "optimizer=sgdm").startswith("optimizer=sgdm: there is no such choice; did you mean sgd")


@pytest.mark.parametrize(
    "values",
    ["seed=range(3,0)", "optimizer=glob(zz*)", "data.batch_size=range(8,8)", "hydra/sweeper=optuna seed=range(3,0)"],
)
def test_a_sweep_over_nothing_is_refused(values: str) -> None:
    with pytest.raises(InputError, match=r"there is no value in it$"):
        make_plan(["-m", *values.split()], CONF)


def test_values_that_only_a_run_knows_are_not_shown_resolved() -> None:
    with pytest.raises(InputError, match=r"^--resolve: .*model\.num_outputs.*Leave out --resolve"):
        make_plan(["--cfg", "job", "--resolve"], CONF)
    given = ["+model.num_outputs=10", "+model.sample_shape=[64]"]
    assert make_plan(["--cfg", "job", "--resolve", *given], CONF).directory is None
    with pytest.raises(InputError, match=r"^--multirun: --cfg and --info show one job"):
        make_plan(["-m", "--cfg", "job", "seed=1,2"], CONF)
