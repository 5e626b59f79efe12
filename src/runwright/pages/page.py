"""A report as one HTML file that needs no network and is safe with any content."""

import os
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from runwright.config.errors import printable
from runwright.pages import charts
from runwright.rundir.durable import write
from runwright.rundir.files import REPORT


@dataclass
class Tile:
    label: str
    value: str
    note: str = ""


@dataclass
class Figure:
    name: str  # the element's id
    title: str
    chart: charts.Chart
    height: int = 260
    is_wide: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        return charts.for_page(self.chart, self.height)


@dataclass
class Table:
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass
class Image:
    source: str  # a data URI
    alt: str
    caption: str


@dataclass
class Section:
    """A question, its answer in sentences, and the figures and tables that show it."""

    title: str
    text: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    code: str = ""
    more: tuple[str, str] | None = None  # a title, and text that a click on it shows


@dataclass
class Page:
    title: str
    lead: list[str]
    tiles: list[Tile]
    sections: list[Section]
    picture: str  # file name
    error: str = ""

    def write(self, folder: Path, pictured: Sequence[Figure]) -> Path:
        """Write `report.html`, and a picture of the given figures; returns the page's path."""
        path = folder / REPORT
        write(path, self.render().encode())
        if pictured:
            drawn = [(figure.title, figure.chart) for figure in pictured]
            write(folder / self.picture, charts.picture(drawn, self.title))
        return path

    def render(self) -> str:
        """Only the two scripts may run, by their hashes, and nothing may be fetched: texts are from untrusted files."""
        environment = Environment(
            autoescape=True, loader=PackageLoader("runwright.pages", ""), trim_blocks=True, finalize=_shown
        )
        scripts = {"library": _library(), "script": (Path(__file__).parent / "page.js").read_text("utf-8")}
        hashes = " ".join(f"'sha256-{b64encode(sha256(code.encode()).digest()).decode()}'" for code in scripts.values())
        policy = (
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )
        return environment.get_template("page.html").render(page=self, policy=policy, **scripts)


def _shown(value: Any) -> Any:
    """A value as the template shows it: strings printable, code and charts unchanged."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, cached because vl-convert takes two seconds to bundle it."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = Path(caches, "runwright", f"vega-{version('vl-convert-python')}.js")
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text("utf-8")
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")
    with suppress(OSError):  # another process was first, or there is no place for a cache
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, script.encode(), exclusive=True)
    return script


def percent(share: float, digits: int = 3) -> str:
    return f"{100 * share:.2f} %" if 0.99 < share < 1 else f"{charts.short(100 * share, digits)} %"


def score(key: str, value: float | None, digits: int = 3) -> str:
    """A metric's value, in percent if it is a share of samples."""
    if value is None:
        return "-"
    return percent(value, digits) if is_share(key) else charts.short(value, digits)


def is_share(key: str) -> bool:
    return key.rpartition("_")[2] in ("acc", "accuracy")
