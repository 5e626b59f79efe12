"""Checks of a composed configuration: keys that nothing reads, None instead of null, missing values."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from runwright.config.errors import InputError, nearest
from runwright.config.keys import COLLECTIONS, GLOBAL_GROUPS, MACHINE, PARTS, VALUES

SECTIONS = (*PARTS, *COLLECTIONS)
MISSING = "???"  # in a YAML file: a value that the user must give
NULL = "None"  # YAML reads it as a string


def check_keys(cfg: DictConfig, own: Collection[str] = ()) -> None:
    """Refuse keys that nothing reads.

    A key is read if it is one of the engine's, is in the main configuration file, or is referred to by another value.

    Args:
        cfg: as composed, with interpolations unresolved.
        own: keys of the main configuration file.

    Raises:
        InputError: a key that nothing reads, a key with a dot, or `None` instead of null.
    """
    content = _plain(cfg)
    for group in (*GLOBAL_GROUPS, MACHINE):
        if group in content:
            raise InputError(f"{group}: its file must hold keys and values, after the line `# @package _global_`")
    for name, value in _leaves(content):
        if any("." in part for part in name):
            raise InputError(
                f"{'.'.join(name)}: a key with a dot sets nothing; in a file, write each part on its own line, "
                f"indented below the one before"
            )
        if value == NULL:
            raise InputError(f"{'.'.join(name)}: None is read as a string; write null for no value")
    words = referenced_words(str(content))
    for key in content:
        if key not in (*VALUES, *SECTIONS, *own) and key not in words:
            fix = nearest(key, (*VALUES, *SECTIONS)) or did_you_mean(key, cfg)
            raise InputError(f"{key}: nothing reads this key{fix}")


def missing_values(loader: ConfigLoader, config_name: str, choices: list[str], composed: DictConfig) -> dict[str, str]:
    """Each key whose last value in the chosen files is `???`, with the name of the file.

    This reads the files, because composing drops a `???` if an earlier file has a value.

    Args:
        loader: Hydra's.
        config_name: name of the main configuration.
        choices: the overrides that choose files.
        composed: the configuration composed from them.
    """
    folders = [Path(each.path) for each in composed.hydra.runtime.config_sources if each.schema == "file"]
    if not any(MISSING in file.read_text(errors="replace") for folder in folders for file in folder.rglob("*.yaml")):
        return {}  # the usual case; loading them all takes 0.1 s
    found: dict[str, str] = {}
    for chosen in loader.compute_defaults_list(config_name, choices, RunMode.RUN).defaults:
        files = [folder / f"{chosen.config_path}.yaml" for folder in folders]
        content = next((OmegaConf.load(file) for file in files if file.is_file()), None)
        for name, value in _leaves(OmegaConf.to_container(content)) if isinstance(content, DictConfig) else ():
            key = ".".join(name if not chosen.package else (chosen.package, *name))
            if value == MISSING and name[0] not in ("defaults", "hydra"):
                found[key] = f"{chosen.config_path}.yaml"
            else:
                found.pop(key, None)
    return found


def referenced_words(text: str) -> set[str]:
    """All words in `${...}`: names of keys and of resolvers."""
    return set(re.findall(r"[\w-]+", " ".join(re.findall(r"\$\{([^}]*)", text))))


def did_you_mean(name: str, cfg: DictConfig, excluded: str = "") -> str:
    """`; did you mean optimizer.lr?` if other keys than `excluded` end with this name; else empty."""
    keys = [".".join(path) for path, _ in _leaves(_plain(cfg)) if len(path) > 1 and path[-1] == name]
    found = [key for key in keys if key != excluded]
    return f"; did you mean {' or '.join(found[:2])}?" if found else ""


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The content without Hydra's section, which has values that need a running job; interpolations unresolved."""
    content: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    return content


def _leaves(node: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parts of each key, and its value; the index of a list element is a part of its key."""
    if isinstance(node, dict | list) and node:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*name, str(key)))
    else:
        yield name, node
