"""Readers of the files in a run directory, whoever made it: each checks that a file is what its name says."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from runwright.config.errors import InputError
from runwright.rundir.files import CONFIG, METRICS, OVERRIDES, PROVENANCE, RESULTS

REOPENED_PARTS = ("data", "model", "task")  # all that is built of a run that is only reopened
LARGEST, DEEPEST = 1_000_000, 50  # bytes of a config.yaml, and levels of nesting


def read_values(run_dir: Path) -> dict[str, Any]:
    """What a run directory's `config.yaml` holds, for whoever builds nothing of it: small, and plain values alone.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    path = run_dir / CONFIG
    if not path.is_file():
        raise InputError(f"{run_dir}: no run directory, it holds no config.yaml")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: larger than {LARGEST:,} bytes, which no run's configuration is")
    try:
        text = path.read_text(encoding="utf-8")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            # A few lines of references could grow to gigabytes; a tag could make what is neither list nor mapping.
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise InputError(f"{path}: holds references, tags or deep nesting, as no recorded run does")
        content = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not a configuration: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in REOPENED_PARTS):
        raise InputError(f"{path}: not the configuration of a run, which has data, model and task")
    return content


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """`metrics.json`; empty where the run did not finish.

    Raises:
        InputError: it is something else.
    """
    path = run_dir / METRICS
    if not path.is_file():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        is_named = all(isinstance(metrics[key], str) for key in ("name", "monitor", "mode"))
        parts = [metrics["fit"], metrics["test"], metrics.get("settings") or {}]
        numbers = [metrics.get(key) for key in ("best", "best_epoch", "seconds")]
        numbers += [*metrics["fit"].values(), *metrics["test"].values()]
        are_numbers = all(n is None or isinstance(n, float) or (isinstance(n, int) and abs(n) < 2**63) for n in numbers)
        if is_named and are_numbers and all(isinstance(part, dict) for part in parts):
            return metrics
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(f"{path}: not the metrics of a run")


def read_provenance(run_dir: Path) -> list[dict[str, Any]]:
    """`provenance.json`, an entry for each time that the run was started or gone on with; empty where there is none.

    Raises:
        InputError: it is something else.
    """
    path = run_dir / PROVENANCE
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        kinds = {"started": str, "git": dict | None, "versions": dict}
        if isinstance(entries, list) and all(isinstance(each[key], kinds[key]) for each in entries for key in kinds):
            return entries
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise InputError(f"{path}: not the provenance of a run")


def read_overrides(run_dir: Path) -> list[str]:
    """`overrides.yaml`; empty where there is none.

    Raises:
        InputError: it is something else.
    """
    path = run_dir / OVERRIDES
    if not path.is_file():
        return []
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        overrides = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        if isinstance(overrides, list) and all(isinstance(override, str) for override in overrides):
            return overrides
    except (yaml.YAMLError, ValueError, RecursionError):
        pass
    raise InputError(f"{path}: not what was typed for a run")


def read_results(folder: Path) -> dict[str, Any]:
    """`test_results.json`; empty where there is none.

    Raises:
        InputError: it is something else.
    """
    path = folder / RESULTS
    if not path.is_file():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        names, counts = results["class_names"], results["confusion"]
        num_classes = len(counts)
        is_square = all(len(row) == num_classes and all(isinstance(n, int) and n >= 0 for n in row) for row in counts)
        is_named = len(names) == num_classes == len(set(names)) and all(isinstance(name, str) for name in names)
        are_mistakes = all(_is_mistake(each, num_classes) for each in results["mistakes"])
        if num_classes and is_square and is_named and are_mistakes:
            return results
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise InputError(f"{path}: not the results of a test")


def _is_mistake(mistake: dict[str, Any], num_classes: int) -> bool:
    classes, shape, sample = (mistake["target"], mistake["predicted"]), mistake["sample_shape"], mistake["sample"]
    return (
        all(isinstance(each, int) and 0 <= each < num_classes for each in classes)
        and all(isinstance(size, int) and size > 0 for size in shape)
        and math.prod(shape) == len(sample)
        and all(isinstance(value, int | float) and math.isfinite(value) for value in [mistake["probability"], *sample])
    )
