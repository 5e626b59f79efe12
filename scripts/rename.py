"""Turn the template into your own project: python scripts/rename.py NAME"""

import keyword
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import yaml

from runwright.config.arguments import Parser, complaining
from runwright.config.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
# Later versions of the template change these. They are not renamed, so that merging them causes no conflicts.
UNTOUCHED = ("src/runwright/", "src/hydra_plugins/", "tests/runwright/", "CHANGELOG.md", "uv.lock")


def main() -> None:
    parser = Parser(description="Rename your package and every mention of it; the engine stays unchanged.")
    parser.add_argument("name", help="new name of the package: lower-case letters, digits and underscores")
    args = parser.parse_args()
    with complaining():
        old = yaml.safe_load((ROOT / "conf" / "trusted.yaml").read_text())["packages"][0]
        if not (ROOT / "src" / old).is_dir():
            raise InputError(f"conf/trusted.yaml: packages begins with {old}, but there is no src/{old}")
        if args.name == old:
            print(f"src/{old}: nothing to rename")
            return
        check(args.name)
        changed = rename(old, args.name)
        if find_spec("ruff") is not None:  # the new name may change the order of imports
            subprocess.run(
                [sys.executable, "-m", "ruff", "check", "--fix", "--quiet", "--select=I"], cwd=ROOT, check=True
            )
        left = [str(path) for path in tracked() if mentions(path, old)]
        print(f"src/{args.name}: renamed from {old}, {changed} files changed")
        if left:
            print(f"these files still contain {old}: {', '.join(left)}", file=sys.stderr)
        print("next: uv sync && uv run pytest; then commit")


def check(name: str) -> None:
    """Raise InputError if the name cannot be used for the package."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(f"{name}: must be lower-case letters, digits and underscores, and not a Python keyword")
    if (ROOT / "src" / name).exists() or find_spec(name) is not None:
        raise InputError(f"{name}: a package of this name already exists")


def rename(old: str, new: str) -> int:
    """Rename the folders, and replace the name in every tracked text file; returns the number of files changed."""
    for folder in (Path("src", old), Path("tests", old)):
        if (ROOT / folder).is_dir():
            subprocess.run(["git", "mv", folder, folder.with_name(new)], cwd=ROOT, check=True)
    changed = 0
    for path in tracked():
        if mentions(path, old):
            text = (ROOT / path).read_text(encoding="utf-8")
            (ROOT / path).write_text(re.sub(rf"\b{old}\b", new, text), encoding="utf-8")
            changed += 1
    return changed


def tracked() -> Iterator[Path]:
    """Files that git tracks or would add, except `UNTOUCHED`; relative to the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(UNTOUCHED) and (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            yield Path(name)


def mentions(path: Path, package: str) -> bool:
    """Whether a file is text that contains the package's name as a word."""
    try:
        return re.search(rf"\b{package}\b", (ROOT / path).read_text(encoding="utf-8")) is not None
    except UnicodeDecodeError:
        return False


if __name__ == "__main__":
    main()
