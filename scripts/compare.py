"""Compare runs: python scripts/compare.py RUN_OR_SWEEP_DIR ..."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from litmlp.runs.compare import compare, find_runs, problems, show, write_summary


def main() -> None:
    parser = ArgumentParser(description="Compare runs: what differs, and how they did, best first.")
    parser.add_argument("directories", nargs="+", type=Path, help="run directories, or directories that hold some")
    parser.add_argument("--metric", help="show this metric alone")
    parser.add_argument("--output", type=Path, help="folder for summary.csv and summary.json (default: a sole sweep's)")
    args = parser.parse_args()
    outputs = [args.output] if args.output else args.directories
    missing = [str(folder) for folder in dict.fromkeys([*args.directories, *outputs]) if not folder.is_dir()]
    if missing:
        sys.exit(_complain(f"{', '.join(missing)}: no such directory"))
    runs = find_runs(args.directories)
    rows = compare(runs)
    if not rows:
        sys.exit(_complain(f"{', '.join(map(str, args.directories))}: no runs"))
    known = dict.fromkeys(key for row in rows for key in row.mean)
    if args.metric and args.metric not in known:
        sys.exit(_complain(f"--metric {args.metric}: not logged; there are: {', '.join(known)}"))
    show(rows, args.metric)
    for problem in problems(rows):
        print(problem, file=sys.stderr)
    if len(outputs) == 1 and outputs != runs:
        write_summary(outputs[0], rows)


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
