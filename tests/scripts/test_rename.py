"""A fork's own name, and a later version of the template in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGE = yaml.safe_load((ROOT / "conf" / "trusted.yaml").read_text())["packages"][0]


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *args], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def script(folder: Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, folder / "scripts" / name, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A repository of the files as they are now, committed or not."""
    folder = tmp_path / "template"
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=The template")
    return folder


@pytest.mark.parametrize("name", ["torch", "json", "Bad", "class", "a-b", "", "../x", "runwright"])
def test_a_name_that_no_package_can_have_is_refused(name: str) -> None:
    result = script(ROOT, "rename.py", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{name}: ")


def test_a_renamed_fork_names_itself_alone_and_takes_a_later_engine(template: Path, tmp_path: Path) -> None:
    fork = tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", str(template), str(fork))
    result = script(fork, "rename.py", "zebra")
    assert (result.returncode, result.stderr) == (0, ""), result
    assert git(fork, "ls-files", "--others", "--modified", "src/runwright", "src/hydra_plugins") == ""
    left = git(fork, "grep", "--name-only", "--word-regexp", PACKAGE, "--", ":!CHANGELOG.md") if _has(fork) else ""
    assert left == ""
    assert script(fork, "rename.py", "zebra").stdout == "src/zebra: nothing to rename\n"
    git(fork, "add", "--all")
    (fork / "src" / "zebra" / "models" / "own.py").write_text('"""The fork\'s own."""\n')
    (fork / "src" / "zebra" / "optim.py").open("a").write("# changed by the fork\n")
    git(fork, "add", "--all")
    git(fork, "commit", "--quiet", "--message=A project of our own")

    for path in (template / "src" / "runwright").rglob("*.py"):
        path.write_text(path.read_text() + "# a later version\n")
    (template / "src" / PACKAGE / "models" / "mlp.py").open("a").write("# a later version\n")
    git(template, "commit", "--quiet", "--all", "--message=A later version")
    git(fork, "pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")  # fails where there is a conflict
    assert (fork / "src" / "runwright" / "contracts.py").read_text().endswith("# a later version\n")
    assert (fork / "src" / "zebra" / "models" / "mlp.py").read_text().endswith("# a later version\n")
    assert (fork / "src" / "zebra" / "optim.py").read_text().endswith("# changed by the fork\n")

    checked = script(fork, "train.py", "optimizer=sgd", "--cfg=job")
    assert checked.returncode == 0, checked.stderr
    assert f"_target_: {PACKAGE}." not in checked.stdout


def _has(fork: Path) -> bool:
    found = subprocess.run(["git", "grep", "--quiet", "--word-regexp", PACKAGE, "--", ":!CHANGELOG.md"], cwd=fork)
    return found.returncode == 0
