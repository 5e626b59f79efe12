"""Readers of the files in a run directory, which may come from someone else: each checks the file's content."""

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from runwright.config.errors import InputError, all_printable, printable
from runwright.rundir.files import CONFIG, ERROR, METRICS, OVERRIDES, PROVENANCE, RESULTS

REOPENED_PARTS = ("data", "model", "task")  # the only parts that are built when a run is reopened
LARGEST_YAML, DEEPEST = 1_000_000, 50  # bytes; levels of nesting
LARGEST_JSON = 100_000_000  # bytes: test_results.json holds samples
LONGEST_ERROR = 1000  # bytes of the error of a failed run


def open_inside(path: Path, folder: Path, most: int) -> BinaryIO:
    """Open a file in a directory that may come from someone else.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is a link out of the folder, not a plain file (a pipe, say), or larger than `most` bytes.
    """
    try:
        place = path.resolve()
        if not place.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a link that leads out of {folder}; replace it with the file itself")
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK)  # else opening a pipe waits for a writer
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except RuntimeError as error:  # from pathlib, for a cycle of links
        raise InputError(f"{path}: a link to itself") from error
    status = os.fstat(descriptor)
    is_file = stat.S_ISREG(status.st_mode)
    if not is_file or status.st_size > most:
        os.close(descriptor)
        raise InputError(
            f"{path}: {f'larger than {most:,} bytes' if is_file else 'not a plain file'}, unlike every file of a run"
        )
    return os.fdopen(descriptor, "rb")


def read_inside(path: Path, folder: Path, most: int) -> bytes:
    """The content of a file, opened with `open_inside`."""
    with open_inside(path, folder, most) as file:
        return file.read(most)


def read_yaml(path: Path) -> Any:
    """Read plain values from a small YAML file in the directory of a run or a sweep.

    Raises:
        FileNotFoundError: there is none.
        InputError: it holds something else, or `open_inside` refuses it.
    """
    content = read_inside(path, path.parent, LARGEST_YAML)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        text = content.decode("utf-8")
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            # A few lines of aliases could expand to gigabytes; a tag could create any kind of object.
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
                raise InputError(f"{path}: holds aliases, tags or deep nesting, which no recorded run has")
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not a configuration: {' '.join(str(error).split())[:200]}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file in a run directory, with its strings made printable.

    Raises:
        FileNotFoundError: there is none.
        InputError: `open_inside` refuses it.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    return all_printable(json.loads(read_inside(path, path.parent, LARGEST_JSON).decode("utf-8")))


def read_error(run_dir: Path) -> str:
    """The first line of `error.txt`; empty if there is none.

    Raises:
        InputError: `open_inside` refuses it.
    """
    try:
        with open_inside(run_dir / ERROR, run_dir, LARGEST_JSON) as file:
            return printable(file.read(LONGEST_ERROR).decode("utf-8", errors="replace").partition("\n")[0])
    except FileNotFoundError:
        return ""


def read_values(run_dir: Path) -> dict[str, Any]:
    """The plain values in a run directory's `config.yaml`. To build objects from it, use `trust.read_config`.

    Raises:
        InputError: there is no such file, or it is not the configuration of a run.
    """
    path = run_dir / CONFIG
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{run_dir}: no run directory: it has no config.yaml") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in REOPENED_PARTS):
        raise InputError(f"{path}: not the configuration of a run, which has data, model and task")
    return content


def read_metrics(run_dir: Path) -> dict[str, Any]:
    """Read `metrics.json`; empty if the run did not finish.

    Raises:
        InputError: it holds something else.
    """
    path = run_dir / METRICS
    try:
        metrics = read_json(path)
        is_named = all(isinstance(metrics[key], str) for key in ("name", "monitor", "mode"))
        parts = [metrics["fit"], metrics["test"], metrics.get("settings") or {}]
        numbers = [metrics.get(key) for key in ("best", "best_epoch", "seconds")]
        numbers += [*metrics["fit"].values(), *metrics["test"].values()]
        are_numbers = all(n is None or isinstance(n, float) or (isinstance(n, int) and abs(n) < 2**63) for n in numbers)
        if is_named and are_numbers and all(isinstance(part, dict) for part in parts):
            return metrics
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise InputError(f"{path}: not the metrics of a run")


def read_provenance(run_dir: Path) -> list[dict[str, Any]]:
    """Read `provenance.json`: one entry for each time the run was started or resumed; empty if there is none.

    Raises:
        InputError: it holds something else.
    """
    path = run_dir / PROVENANCE
    try:
        entries = read_json(path)
        kinds = {"started": str, "git": dict | None, "versions": dict}
        if isinstance(entries, list) and all(isinstance(each[key], kinds[key]) for each in entries for key in kinds):
            return entries
    except FileNotFoundError:
        return []
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    raise InputError(f"{path}: not the provenance of a run")


def read_overrides(run_dir: Path) -> list[str]:
    """Read `overrides.yaml`; empty if there is none.

    Raises:
        InputError: it holds something else.
    """
    path = run_dir / OVERRIDES
    try:
        overrides = read_yaml(path)
    except FileNotFoundError:
        return []
    if isinstance(overrides, list) and all(isinstance(override, str) for override in overrides):
        return overrides
    raise InputError(f"{path}: not the overrides of a run")


def read_results(folder: Path) -> dict[str, Any]:
    """Read `test_results.json`; empty if there is none.

    Raises:
        InputError: it holds something else.
    """
    path = folder / RESULTS
    try:
        results = read_json(path)
        names, counts = results["class_names"], results["confusion"]
        num_classes = len(counts)
        is_square = all(len(row) == num_classes and all(isinstance(n, int) and n >= 0 for n in row) for row in counts)
        is_named = len(names) == num_classes == len(set(names)) and all(isinstance(name, str) for name in names)
        are_mistakes = all(_is_mistake(each, num_classes) for each in results["mistakes"])
        if num_classes and is_square and is_named and are_mistakes:
            return results
    except FileNotFoundError:
        return {}
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
