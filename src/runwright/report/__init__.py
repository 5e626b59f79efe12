"""`report.html`: the results of a run or a sweep, with the charts also in `curves.png` or `sweep.png`."""

from pathlib import Path

from runwright.config.errors import InputError, sentence
from runwright.rundir.files import REPORT
from runwright.sweeps.leaderboard import compare, find_runs


def write_report(directory: Path) -> Path:
    """Write the report of a run, or of all runs below a directory; returns the page's path.

    Raises:
        InputError: there are no runs, or one of their files is damaged.
    """
    runs = find_runs([directory])
    if not runs:
        raise InputError(f"{directory}: no runs")
    # imported here, so that an error above does not wait for the drawing libraries
    if runs == [directory]:
        from runwright.report.run import report_run

        return report_run(directory)
    from runwright.report.sweep import report_sweep

    return report_sweep(directory, compare(runs))


def report_line(directory: Path) -> str:
    """Write the report; returns a line with its path, or with the error: a failed report must not fail the run."""
    page = directory / REPORT
    try:
        page.unlink(missing_ok=True)  # it may be of a sweep that has continued since
        return f"report: {write_report(directory)}"
    except Exception as error:
        outcome = f"report: {page}, but no picture" if page.is_file() else "no report"
        return f"{outcome}: {sentence(error) or f'{type(error).__name__}: {error}'}"
