"""Fill, take away or write-protect the file system under a run, mend it, resume, and compare the run's bits.

unshare -rm python tests/faults.py
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bits import differences, left_by
from kill import ALIKE, LONG, attempt

from runwright.loop.checkpoints import LastCheckpoint

STEP = 50  # of 41 an epoch


def mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def at_step(act: Callable[[], object]) -> None:
    """Let a run do this after a step; a callback of the engine is made to, for a resumed run builds no others."""
    old = LastCheckpoint.on_train_batch_end

    def wrapped(self: object, trainer: object, *args: object) -> None:
        if trainer.global_step == STEP:  # type: ignore[attr-defined]
            act()
        old(self, trainer, *args)  # type: ignore[arg-type]

    LastCheckpoint.on_train_batch_end = wrapped  # type: ignore[assignment,method-assign]


def run(folder: Path, args: list[str], act: Callable[[], object] | None = None) -> tuple[int, str]:
    """Exit status, and the last line of what it said."""
    (folder / "output.txt").unlink(missing_ok=True)
    child = attempt(folder, args, partial(at_step, act) if act else lambda: None)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = (folder / "output.txt").read_text()
    assert "Error executing job" not in said, said  # Hydra's line above a traceback
    return status, said.splitlines()[-1]


def main(folder: Path) -> int:
    ours = ["hydra.run.dir=disk/run", "trainer.max_epochs=4"]
    disk, store = folder / "disk", folder / "store"
    disk.mkdir()
    whole = folder / "whole"
    whole.mkdir()
    assert run(whole, [*LONG, *ALIKE, *ours])[0] == 0
    faults: dict[str, tuple[Callable[[], object], Callable[[], object], str]] = {
        "full": (partial(fill, disk), (disk / "filler").unlink, "No space left on device"),
        "gone": (
            partial(subprocess.run, ["umount", "-l", str(disk)], check=True),
            partial(mount, "--bind", str(store), str(disk)),
            "No such file or directory",
        ),
    }
    failed = False
    for name, (act, mend, expected) in faults.items():
        store.mkdir()
        mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(store))
        mount("--bind", str(store), str(disk))
        status, said = run(folder, [*LONG, *ALIKE, *ours], act)
        print(f"{name}: ended with {status}: {said}", file=sys.stderr)
        failed |= status != 1 or expected not in said
        mend()
        mount("-o", "remount,ro", str(store))
        status, said = run(folder, ["resume=disk/run"])
        print(f"read-only: ended with {status}: {said}", file=sys.stderr)
        failed |= status == 0 or "Read-only file system" not in said
        mount("-o", "remount,rw", str(store))
        assert run(folder, ["resume=disk/run"])[0] == 0
        child = os.fork()  # for torch must not have started threads in the process that forks runs
        if not child:
            found = list(differences(left_by(disk / "run"), left_by(whole / "disk" / "run")))
            print("\n".join(found[:20]), file=sys.stderr, flush=True)
            os._exit(bool(found))
        failed |= os.waitpid(child, 0)[1] != 0
        for path in (disk, store):
            subprocess.run(["umount", str(path)], check=True)
        store.rmdir()
    return failed


if __name__ == "__main__":
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        sys.exit(main(Path(name)))
