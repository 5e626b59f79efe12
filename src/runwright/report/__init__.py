"""`report.html`: what a run or a sweep has come to; its charts are in `curves.png` or `sweep.png`, too."""

from pathlib import Path

from runwright.config.errors import InputError, sentence
from runwright.rundir.files import REPORT
from runwright.sweeps.leaderboard import compare, find_runs


def write_report(directory: Path) -> Path:
    """Of a run, or of all the runs below a directory that is none; the page's path.

    Raises:
        InputError: there are no runs, or one of their files is damaged.
    """
    runs = find_runs([directory])
    if not runs:
        raise InputError(f"{directory}: no runs")
    # here, so that a typo's answer need not wait for the libraries that draw
    if runs == [directory]:
        from runwright.report.run import report_run

        return report_run(directory)
    from runwright.report.sweep import report_sweep

    return report_sweep(directory, compare(runs))


def report_line(directory: Path) -> str:
    """Write the report and say where; what prevents it is said, too, and no reason for a run to fail at its end."""
    page = directory / REPORT
    try:
        page.unlink(missing_ok=True)  # of a sweep that went on since
        return f"report: {write_report(directory)}"
    except Exception as error:
        what = f"report: {page}, but no picture" if page.is_file() else "no report"
        return f"{what}: {sentence(error) or f'{type(error).__name__}: {error}'}"
