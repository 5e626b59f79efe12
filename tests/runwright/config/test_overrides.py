"""The check of a command line against conf/, without torch."""

from collections.abc import Iterator

import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir

from runwright.config.errors import InputError, nearest
from runwright.config.overrides import check_overrides
from runwright.config.walk import as_typed


@pytest.fixture(autouse=True)
def _conf() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=1",  # a whole number for a fraction
        "optimizer.lr=1e-3",
        "trainer.limit_train_batches=3",
        "trainer.limit_train_batches=0.5",
        "model.hidden=[]",
        "model.hidden=[300,100]",
        "model.dropout=[0.1,0.2]",  # one for each in place of one for all
        "model.activation=tanh",
        "trainer.precision=16",  # a string may look like a number
        "seed=null",
        "data.normalize=fit",  # in place of null
        "data.normalize=[0.5,0.5]",
        "data.augment={_target_:torch.nn.Identity}",
        "trainer.profiler=simple",
        "trainer.detect_anomaly=true",
        "optimizer.lr=${data.val_size}",
        "name=mine",
        "task.param_groups=[{pattern:output,lr:0.1}]",
        "+trainer.overfit_batches=2",
        "++optimizer.lr=0.1",
        "~callbacks.early_stopping",
        "hydra.run.dir=here",
        "callbacks=[default,model_summary]",
        "logger=none",
    ],
)
def test_accepts(override: str) -> None:
    jobs, is_sweep = check_overrides("train", [override])
    assert [len(job.overrides) for job in jobs] == [1]
    assert not is_sweep


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer=sgdm", "optimizer=sgdm: there is no such choice; did you mean sgd_momentum or sgd?\n"),
        ("trainer.max_epoch=3", "trainer.max_epoch=3: there is no key trainer.max_epoch; did you mean max_epochs"),
        ("optimizer.lr=abc", "optimizer.lr=abc: this takes a number (now 0.05), not a string"),
        ("optimizer.lr=true", "optimizer.lr=true: this takes a number (now 0.05), not true or false"),
        ("optimizer.lr=[1]", None),  # the constructor's to refuse: it could be one for each
        ("trainer.max_epochs=[1]", "trainer.max_epochs=[1]: this takes a number (now 20), not a list"),
        ("model.hidden=200", "model.hidden=200: this takes a list (now [200,200]), not a number; write model.hidden="),
        ("test=1", "test=1: this takes true or false (now true), not a number"),
        ("monitor={a:1}", "monitor={a:1}: this takes a string (now val_loss), not a mapping"),
    ],
)
def test_refuses(override: str, sentence: str | None) -> None:
    if sentence is None:
        check_overrides("train", [override])
        return
    with pytest.raises(InputError) as error:
        check_overrides("train", [override])
    assert sentence in str(error.value)


def test_keys_are_those_of_the_chosen_file() -> None:
    check_overrides("train", ["optimizer=adam", "optimizer.betas=[0.5,0.5]"])
    with pytest.raises(InputError, match=r"no key optimizer\.betas"):
        check_overrides("train", ["optimizer=sgd", "optimizer.betas=[0.5,0.5]"])


def test_a_documented_word_may_replace_a_list() -> None:
    check_overrides("train", ["data=mnist", "data.normalize=fit"])


def test_all_devices() -> None:
    check_overrides("train", ["trainer.devices=auto"])


def test_the_jobs_of_a_grid_hold_each_value_without_being_multiplied_out() -> None:
    jobs, _ = check_overrides(
        "train", ["seed=range(10)", "optimizer.lr=0.1,0.2", "optimizer=sgd,adam,adamw"], multirun=True
    )
    assert len(jobs) == 1 + 9 + 1 + 2
    for i, values in enumerate(
        (
            {f"seed={n}" for n in range(10)},
            {"optimizer.lr=0.1", "optimizer.lr=0.2"},
            {"optimizer=adam", "optimizer=sgd"},
        )
    ):
        assert values <= {job.overrides[i] for job in jobs}


def test_jobs_are_composed_as_hydra_composes_them() -> None:
    overrides = ["optimizer=sgd,adam", "seed=range(3)", "model.hidden=[8],[8,8]", "monitor='val_loss',\"val_acc\""]
    overrides += ["optimizer.lr=0.1", "optimizer.lr=0.2,1e-3", "data.normalize=fit,null", "name=a,${seed}"]
    overrides += ["task.param_groups=[{pattern:output,lr:0.1}],[]", "hydra.job.name=a,b"]
    for more in ([], ["+callbacks.extra._target_=a.B,a.C", "~callbacks.early_stopping"]):
        jobs, _ = check_overrides("train", [*overrides, *more], multirun=True)
        assert len(jobs) == 11 + len(more) // 2
        for job in jobs:
            composed = dict(job.compose("train").items_ex(resolve=False))
            del composed["hydra"]
            assert composed == dict(compose("train", job.overrides).items_ex(resolve=False))


def test_the_bad_value_of_a_grid_is_found_wherever_it_is() -> None:
    with pytest.raises(InputError, match=r"^seed=x: "):
        check_overrides("train", ["optimizer=sgd,adam", "seed=1,2,x"], multirun=True)


def test_the_ends_of_an_interval_stand_for_it() -> None:
    jobs, _ = check_overrides("train", ["optimizer.lr=interval(0.01,0.1)"], multirun=True)
    assert [job.overrides for job in jobs] == [["optimizer.lr=0.01"], ["optimizer.lr=0.1"]]


def test_a_search_is_checked_at_the_ends_of_its_intervals() -> None:
    jobs, is_sweep = check_overrides(
        "train", ["sweep=optuna", "model.dropout=0.1,0.2", "data.batch_size=range(8,17,8)"]
    )
    assert is_sweep
    values = {setting for job in jobs for setting in job.overrides}
    assert {"optimizer.lr=0.001", "optimizer.lr=1.0", "model.dropout=0.1", "data.batch_size=16"} <= values
    assert "model.dropout=0.5" not in values  # what is typed replaces it
    with pytest.raises(InputError, match=r"^optimizer\.lr=x: "):
        check_overrides("train", ["sweep=optuna", "optimizer.lr=x,0.1"])


def test_a_sweep_of_conf_is_known_as_one_and_can_be_overridden() -> None:
    jobs, is_sweep = check_overrides("train", ["sweep=digits_schedules"])
    assert is_sweep
    assert ["scheduler=plateau", "sweep=digits_schedules"] in [job.overrides for job in jobs]
    jobs, _ = check_overrides("train", ["sweep=digits_schedules", "scheduler=cosine"])
    assert [job.overrides for job in jobs] == [["sweep=digits_schedules", "scheduler=cosine"]]


@pytest.mark.parametrize(
    ("word", "words", "hint"),
    [
        ("sgdm", ["sgd", "sgd_momentum", "adam"], "; did you mean sgd_momentum or sgd?"),
        ("earlystopping", ["early_stopping", "default"], "; did you mean early_stopping?"),
        ("xyz", ["early_stopping", "default"], ""),
    ],
)
def test_nearest(word: str, words: list[str], hint: str) -> None:
    assert nearest(word, words) == hint


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), ([1, [0.5, "a"]], "[1,[0.5,a]]"), (0.1, "0.1"), ("x", "x")]
)
def test_as_typed(value: object, text: str) -> None:
    assert as_typed(value) == text
