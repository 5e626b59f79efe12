"""The tour runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "notebooks" / "tour.ipynb"


def test_what_is_kept_of_the_tour_is_small_and_whole() -> None:
    cells = [cell for cell in nbformat.read(TOUR, 4).cells if cell.cell_type == "code"]
    assert TOUR.stat().st_size < 400_000
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert str(ROOT) not in TOUR.read_text()


@pytest.mark.slow
def test_the_tour(tmp_path: Path) -> None:
    from nbclient import NotebookClient

    (tmp_path / "conf").symlink_to(ROOT / "conf")  # by which it finds where it is
    tour = nbformat.read(TOUR, 4)
    NotebookClient(tour, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert any((tmp_path / "runs" / "tour").glob("*/dropout/metrics.json"))
