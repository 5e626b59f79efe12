"""Directories by whatever signs their names have, and where a run starts from."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CONF, Result
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from runwright.config.errors import InputError
from runwright.config.walk import quoted
from runwright.launch.application import make_plan
from runwright.sweeps.names import record_command

NAMES = [
    "it's",
    "a=b,c",
    "x~y",
    "ümläut",
    "中文",
    "two words",
    'q"uo',
    "br[a]ck{et}",
    "back\\slash",
    "end\\",
    "#1",
    "%c",
]


@pytest.fixture(autouse=True)
def _no_job() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def test_a_quoted_text_is_that_text_to_hydra() -> None:
    draw, parse = random.Random(0), OverridesParser.create().parse_override
    signs = [
        "a",
        "'",
        '"',
        "\\",
        "\\\\",
        "$",
        "{",
        "}",
        "${",
        "${x}",
        "=",
        ",",
        "~",
        "é",
        " ",
        "[",
        "(",
        ":",
        "null",
        "1",
    ]
    for _ in range(500):
        text = "".join(draw.choices(signs, k=draw.randint(0, 8)))
        override = parse(f"key={quoted(text)}")
        assert not override.is_sweep_override()
        assert OmegaConf.create({"key": override.value()}).key == text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["hydra.run.dir", "name", "-m hydra.sweep.dir"])
def test_a_run_is_written_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = key.split()[:-1]
    several = ["seed=1,2"] if flags else []
    plan = make_plan([*flags, f"{key.split()[-1]}={name}", "data=iris", *several], CONF)
    assert plan.directory is not None
    assert (plan.directory.parent.name if key == "name" else str(plan.directory)) == name
    last = OverridesParser.create().parse_override(plan.arguments[-1])
    assert last.value() == str(plan.directory)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_starts_from_the_directory_it_is_told(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, name)
    assert make_plan([f"resume={name}"], CONF).directory == tmp_path / name
    for key in ("from", "init_from"):
        plan = make_plan([f"{key}={name}", "hydra.run.dir=here", *(["data=iris"] if key == "init_from" else [])], CONF)
        assert plan.directory == Path("here")
        values = [OverridesParser.create().parse_override(each).value() for each in plan.arguments if each[0] != "-"]
        assert (name in values) == (key == "init_from")


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_plan(["hydra.run.dir=~/it's", "data=iris"], CONF).directory == tmp_path / "it's"
    for key in ("from", "resume"):
        with pytest.raises(InputError, match=r"no run directory"):
            make_plan([f"{key}=~nobody_of_that_name/x"], CONF)


@pytest.mark.parametrize(
    "source", [f"{key}=${{x}}" for key in ("init_from", "resume", "hydra.run.dir", "name", "data.root")]
)
def test_a_reference_in_a_path_costs_a_sentence(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "${x}")
    data = [] if source.startswith("resume") else ["data=mnist"]
    with pytest.raises(InputError, match=r"\$\{|'x' not found"):
        make_plan([source, *data], CONF)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("resume=run from=run", "resume=run from=run: a run starts from one directory"),
        ("from=run from=other", "from=run from=other: a run starts from one directory"),
        ("-m resume=run", "resume=run: resumes one run, and --multirun starts several"),
        ("-m resume=run seed=1,2", "resume=run: resumes one run, and --multirun starts several"),
        ("resume=run hydra.run.dir=other", "hydra.run.dir=other: resume=run continues in its own directory"),
        ("resume=sweep hydra.sweep.dir=other", "hydra.sweep.dir=other: resume=sweep continues in its own directory"),
        ("resume=sweep from=run", "resume=sweep from=run: a run starts from one directory"),
        ("--config-dir=nowhere", "--config-dir nowhere: there is no such directory"),
    ],
)
def test_what_would_be_ignored_is_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "run")
    record_command(tmp_path / "sweep", {"config_name": None, "overrides": ["seed=1,2"]})
    with pytest.raises(InputError) as error:
        make_plan(arguments.split(), CONF)
    assert str(error.value).startswith(message)


def test_a_sweep_with_an_apostrophe_is_resumed(cli: Callable[..., Result]) -> None:
    small = ["data=iris", "callbacks=no_validation", "monitor=train_loss", "logger=none", "trainer.max_epochs=1"]
    made = cli("-m", "name=it's", *small, "seed=1,2")
    assert made.status == 0, made.err
    assert len(made.run_dirs) == 2
    again = cli(f"resume={made.run_dirs[0].parent}")
    assert again.status == 0, again.err
    assert again.run_dirs == []
