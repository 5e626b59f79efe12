"""Refuse values that a library accepts and then mishandles, before anything is built."""

from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runwright.config.composed import did_you_mean
from runwright.config.errors import InputError, nearest
from runwright.config.keys import COLLECTIONS, COUNTED_LENGTHS, KEYS, PARTS, key
from runwright.config.walk import as_typed, kind_of


def check_values(cfg: DictConfig) -> None:
    """Check that each part exists and names a class, and check each value with `check_value`.

    Raises:
        InputError: with the key, its value, and what is allowed.
    """
    for part in PARTS:
        if not OmegaConf.is_dict(cfg.get(part)):
            raise InputError(f"{part}: a run needs one, and this configuration has {as_typed(cfg.get(part))}")
        _check_class(cfg, part)
    for section in COLLECTIONS:
        parts = cfg.get(section)
        if parts is None:
            continue
        if not OmegaConf.is_dict(parts):
            raise InputError(f"{section}={as_typed(parts)}: this takes named parts, each with its class (_target_)")
        for name in parts:
            _check_class(cfg, f"{section}.{name}")
    if cfg.get("compile") and OmegaConf.select(cfg, "logger.tensorboard.log_graph"):
        raise InputError(
            f"logger.tensorboard.log_graph=true: a compiled model has no graph to log (compile={cfg.compile}); "
            "leave out one of the two"
        )
    for name in KEYS:
        if name != "name" and "*" not in name:
            value = OmegaConf.select(cfg, name)
            check_value(name, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    if not OmegaConf.is_interpolation(cfg, "name"):  # the default is one that only a running job can resolve
        check_value("name", cfg.get("name"))


def _check_class(cfg: DictConfig, part: str) -> None:
    section, (parent, _, name) = OmegaConf.select(cfg, part), part.rpartition(".")
    if not OmegaConf.is_dict(section) or not isinstance(section.get("_target_"), str):
        others = [str(each) for each in cfg[parent] if each != name] if parent else []
        fix = f"; ~{part} leaves it out" if parent and section is None else nearest(name, others)
        fix = fix or did_you_mean(name, cfg, excluded=part)
        value = "" if OmegaConf.is_config(section) else f"={as_typed(section)}"
        raise InputError(f"{part}{value}: names no class (_target_){fix}")


def check_value(name: str, value: Any) -> None:
    """Refuse a value outside the range of its key. Constructors check null, and keys that have no range here.

    Raises:
        InputError: with the range or the values allowed.
    """
    row = key(name)
    if name == "name" and (not isinstance(value, str) or not value or leads_outside(value)):
        raise InputError(f"name={as_typed(value)}: must name a folder under runs/ and sweeps/")
    if name in COUNTED_LENGTHS and value == 0:
        raise InputError(f"{name}=0: trains nothing; must be at least 1, or -1 for no end")
    if row.choices and value is not None and as_typed(value) not in row.choices:
        raise InputError(f"{name}={as_typed(value)}: must be {', '.join(row.choices[:-1])} or {row.choices[-1]}")
    if row.has_no_others and value is not None and kind_of(value) not in row.kinds:
        raise InputError(f"{name}={as_typed(value)}: this takes {' or '.join(row.kinds)}, not {kind_of(value)}")
    if row.least is None or value is None:
        return
    is_whole = isinstance(row.least, int)
    if not isinstance(value, int if is_whole else int | float) or not row.least <= value <= row.most:
        is_above = isinstance(value, int | float) and value > row.most
        most = f" and at most {row.most}" if row.most < 2**31 or is_above else ""
        raise InputError(
            f"{name}={as_typed(value)}: must be a {'whole ' if is_whole else ''}number of at least {row.least:g}{most}"
        )


def leads_outside(path: str) -> bool:
    """Whether a path that is meant to be relative to a folder leads out of it."""
    return PurePath(path).is_absolute() or ".." in PurePath(path).parts or path.startswith("~") or "://" in path
