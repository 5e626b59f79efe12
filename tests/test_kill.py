import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_with_the_bits_of_untouched_ones() -> None:
    script = Path(__file__).with_name("kill.py")
    done = subprocess.run([sys.executable, script, "1"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
