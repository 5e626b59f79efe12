"""Compare finished runs: python scripts/compare.py RUN_OR_SWEEP_DIR ..."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from litmlp.runs.compare import compare, find_runs, table


def main() -> None:
    parser = ArgumentParser(description="Compare finished runs: what differs, and how they did, best first.")
    parser.add_argument("directories", nargs="+", type=Path, help="run directories, or directories that hold some")
    parser.add_argument("--metric", help="show this metric alone")
    args = parser.parse_args()
    missing = [str(folder) for folder in args.directories if not folder.is_dir()]
    if missing:
        sys.exit(_complain(f"{', '.join(missing)}: no such directory"))
    rows = compare(find_runs(args.directories))
    if not rows:
        sys.exit(_complain(f"{', '.join(map(str, args.directories))}: no finished runs (no metrics.json)"))
    known = dict.fromkeys(key for row in rows for key in row.mean)
    if args.metric and args.metric not in known:
        sys.exit(_complain(f"--metric {args.metric}: not logged; there are: {', '.join(known)}"))
    print(table(rows, args.metric))


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
