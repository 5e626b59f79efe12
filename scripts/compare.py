"""Compare runs: python scripts/compare.py RUN_OR_SWEEP_DIR ..."""

import sys
from pathlib import Path

from runwright.config.arguments import Parser, complaining
from runwright.config.errors import InputError
from runwright.sweeps.leaderboard import compare, find_runs
from runwright.sweeps.table import problems, show, write_summary


def main() -> None:
    parser = Parser(description="Compare runs: their differing settings and their metrics, best first.")
    parser.add_argument("directories", nargs="+", type=Path, help="run directories, or directories that contain runs")
    parser.add_argument("--metric", help="show only this metric")
    parser.add_argument("--output", type=Path, help="folder of summary.csv and summary.json (default: the given sweep)")
    args = parser.parse_args()
    with complaining():
        report(args.directories, args.metric, args.output)


def report(directories: list[Path], metric: str | None, output: Path | None) -> None:
    outputs = [output] if output else directories
    missing = [str(folder) for folder in dict.fromkeys([*directories, *outputs]) if not folder.is_dir()]
    if missing:
        raise InputError(f"{', '.join(missing)}: no such directory")
    runs = find_runs(directories)
    rows = compare(runs)
    if not rows:
        raise InputError(f"{', '.join(map(str, directories))}: no runs")
    known = dict.fromkeys(key for row in rows for key in row.mean)
    if metric and metric not in known:
        raise InputError(f"--metric {metric}: not logged; there are: {', '.join(known)}")
    show(rows, metric)
    for problem in problems(rows):
        print(problem, file=sys.stderr)
    if len(outputs) == 1 and outputs != runs:
        write_summary(outputs[0], rows)


if __name__ == "__main__":
    main()
