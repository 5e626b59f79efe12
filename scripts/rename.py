"""Make the template a project of your own: python scripts/rename.py NAME"""

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
# A later version of the template brings its own of these; a merge then touches no line that was renamed.
UNTOUCHED = ("src/runwright/", "src/hydra_plugins/", "tests/runwright/", "CHANGELOG.md", "uv.lock")


def main() -> None:
    parser = Parser(description="Rename the package that is yours, and all that names it; the engine stays as it is.")
    parser.add_argument("name", help="of the package: letters, digits and underscores")
    args = parser.parse_args()
    with complaining():
        old = yaml.safe_load((ROOT / "conf" / "trusted.yaml").read_text())["packages"][0]
        if not (ROOT / "src" / old).is_dir():
            raise InputError(f"conf/trusted.yaml: packages begins with {old}, and there is no src/{old}")
        if args.name == old:
            print(f"src/{old}: nothing to rename")
            return
        check(args.name)
        changed = rename(old, args.name)
        if find_spec("ruff") is not None:  # imports are sorted by name
            subprocess.run(
                [sys.executable, "-m", "ruff", "check", "--fix", "--quiet", "--select=I"], cwd=ROOT, check=True
            )
        left = [str(path) for path in tracked() if names(path, old)]
        print(f"src/{args.name}: renamed from {old}, {changed} files changed")
        if left:
            print(f"still named there: {', '.join(left)}", file=sys.stderr)
        print("next: uv sync && uv run pytest; then commit")


def check(name: str) -> None:
    """Raise InputError where the name cannot be that of a package here."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(f"{name}: must be lower-case letters, digits and underscores, and no word of Python's")
    if (ROOT / "src" / name).exists() or find_spec(name) is not None:
        raise InputError(f"{name}: there is a package of this name already")


def rename(old: str, new: str) -> int:
    """Move the folders of this name, and replace it in every tracked text file; the number of files changed."""
    for folder in (Path("src", old), Path("tests", old)):
        if (ROOT / folder).is_dir():
            subprocess.run(["git", "mv", folder, folder.with_name(new)], cwd=ROOT, check=True)
    changed = 0
    for path in tracked():
        if names(path, old):
            text = (ROOT / path).read_text(encoding="utf-8")
            (ROOT / path).write_text(re.sub(rf"\b{old}\b", new, text), encoding="utf-8")
            changed += 1
    return changed


def tracked() -> Iterator[Path]:
    """Files that git tracks, or would, but for `UNTOUCHED`; relative to the project."""
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


def names(path: Path, package: str) -> bool:
    """Whether a file is text that holds the package's name as a word."""
    try:
        return re.search(rf"\b{package}\b", (ROOT / path).read_text(encoding="utf-8")) is not None
    except UnicodeDecodeError:
        return False


if __name__ == "__main__":
    main()
