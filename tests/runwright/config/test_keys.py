"""The rows of what is known of keys, against the keys that conf/ has."""

import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runwright.config.keys import KEYS, Key, key

GROUPS = [folder for folder in sorted(CONF.iterdir()) if folder.is_dir() and folder.name not in ("hydra", "local")]
TRAIN = OmegaConf.load(CONF / "train.yaml")


def leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of everything in it, sections included."""
    if name:
        yield name, node
    for part, value in node.items() if isinstance(node, dict) else ():
        yield from leaves(value, f"{name}.{part}".lstrip("."))


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Every key that conf/ has with some choice of some group, and its values there, unresolved and as text."""
    found: dict[str, set[str]] = {folder.name: set() for folder in GROUPS}
    choices = [[f"{folder.name}={file.stem}" for file in sorted(folder.glob("*.yaml"))] for folder in GROUPS]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for one_of_each in zip_longest(*choices):  # in a quarter of the time that each by itself would take
            cfg = compose("train", [choice for choice in one_of_each if choice])
            for name, value in leaves(OmegaConf.to_container(cfg)):
                found.setdefault(name, set()).add(str(value))
    return found


def missing(rows: dict[str, Key], known: Iterable[str]) -> set[str]:
    """Rows that stand for no key."""
    patterns = {row: re.compile(re.escape(row).replace(r"\*", r"[^.]+")) for row in rows if not rows[row].is_added}
    return {row for row, pattern in patterns.items() if not any(map(pattern.fullmatch, known))}


def test_every_row_stands_for_a_key_of_conf(known: dict[str, set[str]]) -> None:
    assert missing(KEYS, known) == set()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("callbacks.early_stopping", "callbacks.patient", {"callbacks.early_stopping.patience"}),
        ("callbacks.confusion", "callbacks.mistakes", {"callbacks.confusion"}),
        ("trainer.max_steps", "trainer.num_steps", {"trainer.max_steps"}),
        ("callbacks.nonfinite.action", "callbacks.nonfinite.what", {"callbacks.*.action"}),
        ("seed", "random_seed", {"seed"}),
    ],
)
def test_a_row_is_missed_where_its_key_is_renamed(
    known: dict[str, set[str]], old: str, new: str, expected: set[str]
) -> None:
    renamed = [re.sub(rf"^{re.escape(old)}(?=\.|$)", new, name) for name in known]
    assert missing(KEYS, renamed) == expected


def test_what_a_run_adds_is_not_in_conf(known: dict[str, set[str]]) -> None:
    assert {row for row in KEYS if KEYS[row].is_added} & known.keys() == set()


def test_what_follows_another_key_does_so_in_conf(known: dict[str, set[str]]) -> None:
    for row, source in {row: KEYS[row].follows for row in KEYS if KEYS[row].follows}.items():
        assert source in TRAIN
        pattern = re.compile(re.escape(row).replace(r"\*", r"[^.]+"))
        values = {value for name in known if pattern.fullmatch(name) for value in known[name]}
        assert f"${{{source}}}" in values, row


def test_what_refers_to_a_key_of_train_yaml_has_a_row_that_says_so(known: dict[str, set[str]]) -> None:
    references = {(name, value[2:-1]) for name in known for value in known[name] if re.fullmatch(r"\$\{\w+\}", value)}
    assert {name for name, source in references if key(name).follows != source} == set()
