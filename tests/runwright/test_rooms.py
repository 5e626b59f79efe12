"""How the engine is divided into packages, its rooms: what each may import, and what importing one may do."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import PACKAGE, SCRIPT

SRC = SCRIPT.parents[1] / "src"
ENGINE = SRC / "runwright"
DOC = ast.get_docstring(ast.parse((ENGINE / "__init__.py").read_text())) or ""
ROOMS = re.findall(r"^- `(\w+)`:", DOC, re.MULTILINE)  # in their order
QUICK = re.findall(r"`(\w+)`", DOC[DOC.rindex("\n\n") :].partition(" import neither torch")[0])
FOR_ALL = ("contracts", "signals")
FILES = sorted(ENGINE.rglob("*.py"))
OF_THE_ENGINE = (ENGINE, SRC / "hydra_plugins", SRC.parent / "tests" / "runwright")  # which a fork does not rename
ALL_FILES = sorted(
    file for folder in OF_THE_ENGINE for file in folder.rglob("*") if file.suffix in (".py", ".html", ".js")
)


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


MODULES = [module_of(file) for file in FILES]


def imported(source: str) -> Iterator[str]:
    """Every module that it imports anywhere, functions included; the engine's own by their whole names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "the engine's imports are absolute"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (member if member in MODULES else node.module for member in members)


IMPORTS = {module_of(file): {*imported(file.read_text())} for file in FILES}


def disallowed(module: str, imports: set[str]) -> set[str]:
    """What of the engine it imports and may not."""
    room = room_of(module)
    allowed = {room, *FOR_ALL, *ROOMS[: ROOMS.index(room)]} if room in ROOMS else set()
    return {name for name in imports if name.split(".")[0] == "runwright" and room_of(name) not in allowed}


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_list_of_rooms_is_what_is_there() -> None:
    assert sorted(ROOMS) == sorted(path.name for path in ENGINE.iterdir() if (path / "__init__.py").is_file())
    assert {path.stem for path in ENGINE.glob("*.py")} == {"__init__", *FOR_ALL}
    assert set(QUICK) < set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_those_above_it(module: str) -> None:
    assert disallowed(module, IMPORTS[module]) == set()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("runwright.loop.step", "from runwright import report", {"runwright.report"}),
        ("runwright.loop.step", "def f():\n    import runwright.training.train as train", {"runwright.training.train"}),
        ("runwright.config.keys", "from runwright.rundir.files import CONFIG", {"runwright.rundir.files"}),
        ("runwright.contracts", "from runwright.config.keys import KEYS", {"runwright.config.keys"}),
        ("runwright.report.run", "import torch, runwright.signals; from runwright.pages import page", set()),
    ],
)
def test_an_import_the_wrong_way_is_seen(module: str, source: str, expected: set[str]) -> None:
    assert disallowed(module, {*imported(source)}) == expected


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: {*MODULES} & names for module, names in IMPORTS.items()}
    assert {*TopologicalSorter(graph).static_order()} == {*MODULES}


@pytest.mark.parametrize("file", ALL_FILES, ids=lambda file: file.relative_to(SRC.parent).as_posix())
def test_the_engine_and_its_tests_do_not_name_the_project(file: Path) -> None:
    assert not re.search(rf"\b{PACKAGE}\b", file.read_text(errors="ignore"))


def test_no_room_holds_more_than_a_fifth_of_the_engine() -> None:
    lines = {file: len(file.read_text().splitlines()) for file in FILES}
    for room in ROOMS:
        share = sum(count for file, count in lines.items() if room_of(module_of(file)) == room) / sum(lines.values())
        assert share <= 0.2, room


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_answers_quickly_imports_neither_torch_nor_lightning() -> None:
    quick = [name for name in MODULES if room_of(name) in QUICK]
    out = run(f"import importlib, sys\nfor name in {quick}: importlib.import_module(name)\nprint(*sys.modules)")
    imported = set(out.split())
    assert set(quick) <= imported
    assert not {"torch", "lightning"} & imported


LOOK = """
import importlib, json, logging, sys, warnings
from omegaconf import OmegaConf

def state():
    loggers = {"root": logging.root} | logging.root.manager.loggerDict
    found = {
        name: [each.level, each.propagate, each.disabled, repr(each.handlers), repr(each.filters)]
        for name, each in loggers.items() if isinstance(each, logging.Logger)
    }
    new = [logging.NOTSET, True, False, "[]", "[]"]
    changed = {name: value for name, value in found.items() if value != new}
    return changed, logging.root.manager.disable, repr(warnings.filters)

for name in FIRST:
    importlib.import_module(name)
OmegaConf.register_new_resolver = OmegaConf.register_resolver = lambda *args, **options: sys.exit(f"resolver {args[0]}")
before = state()
for name in MODULES:
    importlib.import_module(name)
print(json.dumps([before, state()]))
"""


def test_importing_the_engine_changes_no_logging_and_registers_no_resolver() -> None:
    """Beyond what the libraries do that its modules import at their top, which are imported before."""
    at_the_top = [node for file in FILES for node in ast.parse(file.read_text()).body]
    others = {name for node in at_the_top if isinstance(node, ast.Import) for name in (a.name for a in node.names)}
    others |= {node.module or "" for node in at_the_top if isinstance(node, ast.ImportFrom)}
    first = sorted(name for name in others if name.split(".")[0] != "runwright")
    before, after = json.loads(run(f"FIRST, MODULES = {first}, {MODULES}\n{LOOK}").splitlines()[-1])
    assert before == after
