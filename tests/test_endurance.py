"""What kill.py and soak.py do at length, in short."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["kill.py", "3"], ["soak.py", "sweep", "100"], ["soak.py", "crowd", "10"]],
    ids=["killed_runs_end_with_the_bits_of_untouched_ones", "a_sweep_holds_no_more_with_each_job", "no_collisions"],
)
def test_at_length(command: list[str]) -> None:
    script = Path(__file__).with_name(command[0])
    done = subprocess.run([sys.executable, script, *command[1:]], capture_output=True, text=True, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
