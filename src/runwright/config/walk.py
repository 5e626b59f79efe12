"""Iterate over the values of a configuration by dotted key, and write values as on the command line."""

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def leaves_of(cfg: DictConfig, section: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each value in a section, at any depth; a list counts as one value."""
    try:
        node = OmegaConf.select(cfg, section)
    except OmegaConfBaseException:  # an interpolation of a key that does not exist
        parent, _, name = section.rpartition(".")
        yield section, OmegaConf.to_container(OmegaConf.select(cfg, parent))[name]  # type: ignore[index,call-overload]
        return
    if not isinstance(node, DictConfig):
        yield section, OmegaConf.to_container(node) if OmegaConf.is_list(node) else node
        return
    for key in node:
        yield from leaves_of(cfg, f"{section}.{key!s}")


def all_leaves(cfg: DictConfig) -> dict[str, Any]:
    """The same for all sections of a configuration."""
    return {key: value for section in cfg for key, value in leaves_of(cfg, str(section))}


def as_typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(as_typed(element) for element in value)}]"
    return str(value)


def quoted(text: str) -> str:
    """Quote a text so that Hydra's grammar reads exactly this text, with any special characters; `${` is escaped."""
    return QuotedString(re.sub(r"(\\*)\$\{", r"\1\1\\${", text), Quote.single).with_quotes()


def kind_of(value: Any) -> str:
    """The kind of a plain value, for a message."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return {str: "a string", list: "a list", dict: "a mapping", type(None): "null"}.get(type(value), "a value")
