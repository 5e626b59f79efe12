"""Take the pictures of the README and docs/dashboards.md again: python dev/screenshots.py

It trains a run and a sweep of 18 into a temporary folder, some minutes, and opens their reports and TensorBoard in
chromium (`apt-get install chromium chromium-driver`).
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from browser import IS_THERE, Browser, browser, tensorboard
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMG = ROOT / "docs" / "img"
SECONDS_TO_DRAW = 5  # that TensorBoard may take
SWEEP = ("optimizer.lr=0.01,0.03,0.1", "model.dropout=0,0.3", "seed=range(3)", "trainer.max_epochs=12")


def train(folder: Path) -> tuple[Path, Path]:
    command = [sys.executable, str(ROOT / "scripts" / "train.py")]
    subprocess.run(command, check=True, cwd=folder)
    subprocess.run([*command, "-m", *SWEEP], check=True, cwd=folder)
    return next(folder.glob("runs/digits/*")), next(folder.glob("sweeps/digits/*"))


def small(path: Path, colors: int = 64) -> None:
    with Image.open(path) as image:
        image.convert("RGB").quantize(colors).save(path, optimize=True)


def take(window: Browser, name: str, height: float | None = None) -> None:
    window.picture(IMG / f"{name}.png", height=height)
    small(IMG / f"{name}.png")


def main() -> None:
    if not IS_THERE:
        sys.exit("no chromium: apt-get install chromium chromium-driver")
    with TemporaryDirectory() as folder, browser() as window:
        run, sweep = train(Path(folder))
        for source, name in ((run / "curves.png", "curves"), (sweep / "sweep.png", "sweep")):
            shutil.copy(source, IMG / f"{name}.png")
            small(IMG / f"{name}.png")
        window.open(run / "report.html")
        take(window, "report_run", height=1350)
        window.open(sweep / "report.html")
        take(window, "report_sweep", height=1500)
        window.open(run / "report.html", width=390, dark=True)
        take(window, "report_phone", height=1100)
        for logdir, tab, view, name in (
            (run, "custom_scalars", "", "tensorboard"),
            (run, "images", "", "tensorboard_images"),
            (sweep, "hparams", "Parallel Coordinates View", "tensorboard_hparams"),
        ):
            with tensorboard(logdir) as address:
                window.open(f"{address}#{tab}")
                time.sleep(SECONDS_TO_DRAW)
                if view:
                    window.click(view)
                    time.sleep(SECONDS_TO_DRAW)
                take(window, name, height=760)


if __name__ == "__main__":
    main()
