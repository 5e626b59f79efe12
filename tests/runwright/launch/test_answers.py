"""What the command line answers without training, it answers without importing torch."""

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PACKAGE, SCRIPT, Result

ROOT = SCRIPT.parents[1]
PROJECT = ROOT / "src" / PACKAGE
HEAVY = re.compile(r"\| +(torch|torchvision|torchmetrics|lightning|sklearn|tensorboard|optuna)$", re.MULTILINE)
IMPORT_TIME = re.compile(r"^import time:.*\n", re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "status", "answer"),
    [
        ("--help", 0, "optimizer: "),
        ("--cfg job", 0, "max_epochs: 20"),
        ("--info defaults", 0, "optimizer"),
        ("optimizer=sgdm", 2, "did you mean"),
        ("-m optimizer=sgd,sgdm", 2, "did you mean"),
        ("optimizer.lr=abc", 2, "this takes a number"),
        ("trainer.max_epochs=-2", 2, "at least -1"),
        ("from=nowhere", 2, "no run directory"),
    ],
)
def test_an_answer_does_not_import_torch(
    process: Callable[..., Result], command: str, status: int, answer: str
) -> None:
    result = process(*command.split(), python=("-X", "importtime"))
    assert HEAVY.findall(result.err) == []
    assert result.status == status
    assert answer in result.out + IMPORT_TIME.sub("", result.err)


def test_the_completion_of_the_shell_does_not_import_torch(process: Callable[..., Result]) -> None:
    line = "python train.py optimizer=ad"
    result = process(
        "-sc", "query=bash", python=("-X", "importtime"), COMP_LINE=line, COMP_POINT=str(len(line)), COMP_CWORD="2"
    )
    assert HEAVY.findall(result.err) == []
    assert "optimizer=adamw" in result.out


def test_the_script_imports_no_torch() -> None:
    code = f"import sys, runpy; runpy.run_path({str(SCRIPT)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_imports_no_library_that_it_does_not_use() -> None:
    """What of these a run needs, a logger or a data set say, is imported where it is needed."""
    code = "import runwright.training.train, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unused = {"sklearn", "pandas", "tensorboard", "torch.utils.tensorboard", "optuna", "jax", "keras"}
    assert unused & set(done.stdout.split()) == set()


@pytest.mark.parametrize("command", ["compare.py runs", "train.py --help"])
def test_a_pipe_that_nobody_reads_is_no_failure(tmp_path: Path, command: str) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "config.yaml").write_text("name: one\n")
    script, *args = command.split()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, SCRIPT.with_name(script), *args], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_help_lists_every_group_and_choice(cli: Callable[..., Result]) -> None:
    listed = dict(re.findall(r"^(\w+): (.*)$", cli("--help").out.split("Values (")[0], re.MULTILINE))
    on_disk: dict[str, str] = {}
    for folder in (ROOT / "conf").iterdir():
        if folder.is_dir() and folder.name not in ("hydra", "local"):
            on_disk[folder.name] = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
    listed.pop("local", None)  # where this machine has settings of its own
    assert listed == on_disk


def test_help_shows_the_values_as_the_command_leaves_them(cli: Callable[..., Result]) -> None:
    assert "lr: 0.123" in cli("optimizer.lr=0.123", "--help").out


@pytest.mark.parametrize("file", [path.relative_to(PROJECT).as_posix() for path in PROJECT.rglob("*.py")])
def test_hydra_is_known_to_the_engine_alone(file: str) -> None:
    tree = ast.parse((PROJECT / file).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in imported}
    assert not packages & {"hydra", "omegaconf"}
