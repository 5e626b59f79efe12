"""Values that a library accepts and then mishandles, refused before anything is built."""

from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from runwright.config.errors import InputError
from runwright.config.keys import COUNTED_LENGTHS, KEYS, PARTS, key
from runwright.config.walk import as_typed


def check_values(cfg: DictConfig) -> None:
    """Each part is there, and each value is one that `check_value` lets pass."""
    for part in PARTS:
        if not OmegaConf.is_dict(cfg.get(part)):
            raise InputError(f"{part}: a run needs one, and this configuration has {as_typed(cfg.get(part))}")
    if cfg.get("compile") and OmegaConf.select(cfg, "logger.tensorboard.log_graph"):
        raise InputError(
            f"logger.tensorboard.log_graph=true: no graph can be made of a compiled model (compile={cfg.compile}); "
            "leave out one of the two"
        )
    for name in KEYS:
        if name != "name" and "*" not in name:
            check_value(name, OmegaConf.select(cfg, name))
    if not OmegaConf.is_interpolation(cfg, "name"):  # of the default, which only a running job resolves
        check_value("name", cfg.get("name"))


def check_value(name: str, value: Any) -> None:
    """Refuse what is outside its key's range; null, and keys without range, are for the constructors to judge.

    Raises:
        InputError: with the range.
    """
    row = key(name)
    if name == "name" and (not isinstance(value, str) or not value or leads_outside(value)):
        raise InputError(f"name={as_typed(value)}: must name a folder under runs/ and sweeps/")
    if name in COUNTED_LENGTHS and value == 0:
        raise InputError(f"{name}=0: trains nothing; must be at least 1, or -1 for no end")
    if row.choices and value is not None and as_typed(value) not in row.choices:
        raise InputError(f"{name}={as_typed(value)}: must be {', '.join(row.choices[:-1])} or {row.choices[-1]}")
    if row.least is None or value is None:
        return
    is_whole = isinstance(row.least, int)
    if not isinstance(value, int if is_whole else int | float) or not row.least <= value <= row.most:
        most = f" and at most {row.most}" if row.most < 2**31 or (value > row.least and value > row.most) else ""
        raise InputError(
            f"{name}={as_typed(value)}: must be a {'whole ' if is_whole else ''}number of at least {row.least:g}{most}"
        )


def leads_outside(path: str) -> bool:
    """Whether a path that belongs into some folder leads out of it."""
    return PurePath(path).is_absolute() or ".." in PurePath(path).parts or path.startswith("~") or "://" in path
