"""What the README says, run."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split(" #")[0].strip() for block in BLOCKS for line in block.splitlines()]
TRAINING = [c for c in COMMANDS if c.startswith("python scripts/train.py") and not re.search("--help|RUN_DIR", c)]
ON_A_RUN = [c for c in COMMANDS if c.startswith("python scripts/") and "RUN_DIR" in c]


FAST = ("trainer.max_epochs=1", "trainer.limit_train_batches=2")
# tests/test_conf.py runs what the header of a sweep's file says.
ELSEWHERE = re.compile(r"ddp|launcher|sweep=\w+$")


@pytest.mark.parametrize("command", [c for c in TRAINING if not ELSEWHERE.search(c)])
def test_a_training_command_of_the_readme_runs(command, cli, mnist_files):
    arguments = shlex.split(command)[2:]
    if "sweep=ten_folds" in arguments:
        arguments += ["data.num_folds=10", "data.fold=0,1"]  # tests/test_conf.py runs all ten
    result = cli(*arguments, *FAST)
    assert result.status == 0, result.err
    steps = [json.loads((run_dir / "metrics.json").read_text())["steps"] for run_dir in result.run_dirs]
    assert steps
    assert set(steps) <= {1, 2}
    assert len(steps) > 1 or "-m" not in arguments


def test_the_commands_on_a_run_directory_run(cli):
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


def test_the_table_of_groups_lists_what_conf_holds():
    rows = dict(re.findall(r"^\| `(\w+)` \| (`.*`) \|$", README, re.MULTILINE))
    listed = {group: re.findall(r"`(\w+)`", choices) for group, choices in rows.items()}
    folders = [path for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name not in ("hydra", "local")]
    assert listed == {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def test_the_map_and_the_links_name_what_is_there():
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`((?:scripts|docs|conf)/[\w/.-]+\.\w+)`", README)
    allowed_missing = {"conf/local/default.yaml"}  # each machine's own
    assert [t for t in targets if t not in allowed_missing and not (ROOT / t).exists()] == []


def test_the_schedule_that_the_readme_adds_composes_and_trains(cli, tmp_path):
    added = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    (tmp_path / "mine" / "scheduler").mkdir(parents=True)
    (tmp_path / "mine" / "scheduler" / "linear.yaml").write_text(yaml.safe_dump(added))
    searchpath = f"hydra.searchpath=['file://{tmp_path}/mine']"
    result = cli(searchpath, "scheduler=linear", "trainer.log_every_n_steps=1", "logger=csv", *FAST)
    rows = list(csv.DictReader((result.run_dir / "metrics.csv").open()))
    rates = [float(row["lr/decay"]) for row in rows if row.get("lr/decay")]
    assert rates == pytest.approx([0.05, 0.05 * 0.55])  # half of the way from all of it to a tenth
