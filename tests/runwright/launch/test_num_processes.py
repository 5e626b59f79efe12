"""The number of processes follows from the trainer's options, however they are written."""

import pytest
from conftest import composed

from runwright.config.errors import InputError
from runwright.launch.job import num_processes


@pytest.mark.parametrize(
    ("devices", "number"), [("1", 1), ("2", 2), ("'2'", 2), ("'1'", 1), ("auto", 1), ("[0,1]", 2), ("null", 1)]
)
def test_devices_are_counted_as_lightning_counts_them(
    devices: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert num_processes(composed("trainer.accelerator=cpu", f"trainer.devices={devices}")) == number


@pytest.mark.parametrize("devices", ["'0'", "'x'", "'-3'", "-3"])
def test_devices_that_are_no_number_are_refused(devices: str) -> None:
    with pytest.raises(InputError, match=r"trainer\.devices="):
        num_processes(composed("trainer.accelerator=cpu", f"trainer.devices={devices}"))
