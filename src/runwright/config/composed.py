"""What a composed configuration must not hold: keys that nothing reads, None in place of null, missing values."""

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
MISSING = "???"  # what stands in a YAML file for a value that each user must give
NULL = "None"  # which YAML takes for a word


def check_keys(cfg: DictConfig, own: Collection[str] = ()) -> None:
    """Refuse keys that nothing reads.

    Read are the engine's own keys, what the main configuration file itself holds, and what another value refers to.

    Args:
        cfg: as composed, interpolations unresolved.
        own: keys of the main configuration file.

    Raises:
        InputError: a key that nothing reads, one with a dot, or `None` in place of null.
    """
    content = _plain(cfg)
    for group in (*GLOBAL_GROUPS, MACHINE):
        if group in content:
            raise InputError(f"{group}: its file must hold keys and values, after the line `# @package _global_`")
    for name, value in _leaves(content):
        if any("." in part for part in name):
            raise InputError(
                f"{'.'.join(name)}: a key with a dot sets nothing; in a file each part takes a line of its own, "
                f"the next one indented below it"
            )
        if value == NULL:
            raise InputError(f"{'.'.join(name)}: None is a word here; what is left open is written null")
    words = referred(str(content))
    for key in content:
        if key not in (*VALUES, *SECTIONS, *own) and key not in words:
            fix = nearest(key, (*VALUES, *SECTIONS)) or meant(key, cfg)
            raise InputError(f"{key}: nothing reads this key{fix}")


def left_open(loader: ConfigLoader, config_name: str, choices: list[str], composed: DictConfig) -> dict[str, str]:
    """Each key whose value is `???` in one of the chosen files and in no later one, with the name of that file.

    The files are asked, for composing drops a `???` where an earlier file has a value.

    Args:
        loader: Hydra's.
        config_name: of the main configuration.
        choices: the overrides that choose files.
        composed: what they come to.
    """
    folders = [Path(each.path) for each in composed.hydra.runtime.config_sources if each.schema == "file"]
    if not any(MISSING in file.read_text(errors="replace") for folder in folders for file in folder.rglob("*.yaml")):
        return {}  # as nearly always: to load them all takes a tenth of a second
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


def referred(text: str) -> set[str]:
    """All words within `${...}`: names of keys, and of resolvers."""
    return set(re.findall(r"[\w-]+", " ".join(re.findall(r"\$\{([^}]*)", text))))


def meant(name: str, cfg: DictConfig, but: str = "") -> str:
    """`; did you mean optimizer.lr?` where a word is the end of another key than `but`; else nothing."""
    keys = [".".join(path) for path, _ in _leaves(_plain(cfg)) if len(path) > 1 and path[-1] == name]
    found = [key for key in keys if key != but]
    return f"; did you mean {' or '.join(found[:2])}?" if found else ""


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """Without Hydra's own section, some of whose values only a running job has; interpolations unresolved."""
    content: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    return content


def _leaves(node: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The parts of each key, and its value; an element of a list counts as one below its number."""
    if isinstance(node, dict | list) and node:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*name, str(key)))
    else:
        yield name, node
