"""What README.md, docs/usage.md and docs/extending.md say, run."""

import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result

ROOT = Path(__file__).resolve().parents[1]
README, USAGE, EXTENDING = ((ROOT / name).read_text() for name in ("README.md", "docs/usage.md", "docs/extending.md"))
PAGES = [*(ROOT.glob("*.md")), *(ROOT / "docs").glob("*.md"), ROOT / "dev" / "README.md"]
FAST = ["trainer.max_epochs=1", "trainer.limit_train_batches=2"]


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith("python scripts/")]


COMMANDS = list(dict.fromkeys(commands(README) + commands(USAGE)))
TRAINING = [c for c in COMMANDS if c.startswith("python scripts/train.py") and not re.search("--help|RUN_DIR", c)]
ON_A_RUN = [c for c in COMMANDS if "RUN_DIR" in c]
# tests/test_conf.py runs what the header of a sweep's file says.
ELSEWHERE = re.compile(r"ddp|launcher|sweep=\w+$")


@pytest.mark.parametrize("command", [c for c in TRAINING if not ELSEWHERE.search(c)])
def test_a_training_command_runs(command: str, cli: Callable[..., Result], mnist_files: Path) -> None:
    arguments = shlex.split(command)[2:]
    if "sweep=ten_folds" in arguments:
        arguments += ["data.num_folds=10", "data.fold=0,1"]  # tests/test_conf.py runs all ten
    result = cli(*arguments, *FAST)
    assert result.status == 0, result.err
    if "--cfg" in arguments:
        assert "_target_: torch.optim.Adam\n" in result.out
        return
    steps = [json.loads((run_dir / "metrics.json").read_text())["steps"] for run_dir in result.run_dirs]
    assert steps
    assert set(steps) <= {1, 2}
    assert len(steps) > 1 or "-m" not in arguments


def test_the_commands_on_a_run_directory_run(cli: Callable[..., Result]) -> None:
    run_dir = cli(*FAST).run_dir
    np.savetxt("samples.csv", np.zeros((3, 64)), delimiter=",")
    assert ON_A_RUN
    for command in ON_A_RUN:
        _, script, *arguments = shlex.split(command.replace("RUN_DIR", str(run_dir)))
        before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
        result = cli(*arguments, *(FAST if "train" in script else []), script=Path(script).stem)
        assert result.status == 0, result.err
        assert result.out
        left = {path for path in Path().rglob("*") if path.is_file() and path.stat().st_mtime_ns != before.get(path)}
        assert bool(left) != ("evaluate" in script)  # which prints metrics, where the others write files


def test_the_table_of_groups_lists_what_conf_holds() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (`\w+`(?: `\w+`)*) \|$", USAGE, re.MULTILINE))
    listed = {group: re.findall(r"`(\w+)`", choices) for group, choices in rows.items()}
    folders = [path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name not in ("hydra", "local")]
    assert listed == {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def heading_anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_paths_of_a_page_lead_to_what_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    missing = []
    for link in links:
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in heading_anchors(file.read_text())):
            missing.append(link)
    if page.name != "CHANGELOG.md":  # which tells of what there was
        folders = "scripts|docs|conf|src|dev|tests|notebooks"
        paths = re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)(?:::\w+)?`", text)
        written_by_readers = {"conf/local/default.yaml", *re.findall(r"```\w+\n# (\S+/\S+)\n", text)}
        missing += [path for path in paths if path not in written_by_readers and not (ROOT / path).exists()]
    assert missing == []


def test_the_map_names_what_is_there() -> None:
    (block,) = re.findall(r"## The map\n\n```text\n(.*?)```", README, re.DOTALL)
    named, folder = [], ""
    for indent, name in re.findall(r"^( *)(\S+/|\S+\.py) ", block, re.MULTILINE):
        folder = folder if indent else name
        named.append(folder + name if indent else name)
    assert [path for path in named if not (ROOT / path).exists()] == []
    scripts = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
    assert sorted(re.findall(r"\w+\.py", re.search(r"^scripts/.*$", block, re.MULTILINE)[0])) == scripts
    packages = [f"{path.parent.relative_to(ROOT)}/" for path in (ROOT / "src").glob("*/*/__init__.py")]
    assert [package for package in packages if package not in named] == []


def test_the_page_on_reliability_names_tests_that_are_there() -> None:
    """By what `pytest -k` finds: the beginning of a test's name, or its module."""
    page = (ROOT / "docs" / "reliability.md").read_text()
    modules = list((ROOT / "tests").rglob("test_*.py"))
    text = "\n".join([*(path.read_text() for path in modules), *(f"def {path.stem}" for path in modules)])
    assert [name for name in re.findall(r"`(test_\w+)`", page) if f"def {name}" not in text] == []


def test_the_parts_that_a_page_adds_train_together(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```(?:yaml|python)\n# (\S+)\n(.*?)```", EXTENDING, re.DOTALL)
    assert len(blocks) == 7
    for path, text in blocks:
        file = tmp_path / "mine" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if path.startswith("src/"):
            package = importlib.import_module(".".join(Path(path).parent.parts[1:]))
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(file.parent)])
    (command,) = [c for c in commands(EXTENDING) if "train.py" in c]
    searchpath = f"hydra.searchpath=['file://{tmp_path}/mine/conf']"
    result = cli(searchpath, *shlex.split(command)[2:], *FAST)
    assert result.metrics["steps"] == 2
    config = (result.run_dir / "config.yaml").read_text()
    assert all(target in config for _, text in blocks for target in re.findall(r"_target_: ([\w.]+)", text))
