"""Debian's chromium, without a window: what a page shows, says and asks for."""

import base64
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")  # apt-get install chromium chromium-driver
IS_THERE = bool(CHROMIUM and DRIVER)
HEIGHT = 900
# Every element, those below shadow roots, too, of which TensorBoard is made.
DEEP = """const below = e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])];
const all = root => [...root.querySelectorAll("*")].flatMap(below);
"""


class Browser:
    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str | Path, width: int = 1280, dark: bool = False, media: str = "screen") -> None:
        """Show a page, once its charts are drawn."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        self.emulate(dark, media)
        self.driver.get(url.resolve().as_uri() if isinstance(url, Path) else url)
        drawn = "return [...document.querySelectorAll('figure[id]')].every(f => f.classList.contains('drawn'))"
        self.wait(drawn)

    def emulate(self, dark: bool, media: str = "screen") -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def ask(self, script: str) -> Any:
        """What a script of the page returns; `all(root)` is there for it."""
        return self.driver.execute_script(DEEP + script)

    def wait(self, script: str, seconds: float = 30) -> Any:
        """For a script to return what counts as true."""
        end = time.monotonic() + seconds
        while not (found := self.ask(script)):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.1)
        return found

    def click(self, label: str) -> None:
        """What bears this label, in small or capital letters, once it is there."""
        bears = f"n => n.nodeType == 3 && n.data.trim().toLowerCase() == {label.lower()!r}"
        self.wait(f"const e = all(document).find(e => [...e.childNodes].some({bears})); e?.click(); return e")

    def text(self) -> str:
        """All of it, a line for each piece."""
        pieces = "[...e.childNodes].filter(n => n.nodeType == 3).map(n => n.data.trim())"
        elements = "all(document).filter(e => !['SCRIPT', 'STYLE'].includes(e.tagName))"
        return self.ask(f"return {elements}.flatMap(e => {pieces}).filter(t => t).join('\\n')")

    def complaints(self, least: str = "WARNING") -> list[str]:
        """Of the console since last asked, of this level at least."""
        entries, levels = self.driver.get_log("browser"), ["DEBUG", "INFO", "WARNING", "SEVERE"]
        return [entry["message"] for entry in entries if levels.index(entry["level"]) >= levels.index(least)]

    def requests(self) -> list[str]:
        """URLs asked for since last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path, top: float = 0, height: float | None = None) -> None:
        """Write a PNG of the page, or of part of it."""
        width, whole = self.ask("const e = document.documentElement; return [e.clientWidth, e.scrollHeight]")
        clip = {"x": 0, "y": top, "width": width, "height": height or whole, "scale": 1}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Serve a folder of runs on this machine; the address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
    finally:
        server.terminate()
        server.wait()
