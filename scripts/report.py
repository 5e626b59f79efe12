"""Write the report of a run or a sweep: python scripts/report.py RUN_OR_SWEEP_DIR"""

from pathlib import Path

from runwright.config.arguments import Parser, complaining
from runwright.config.errors import InputError, printable
from runwright.report import write_report


def main() -> None:
    parser = Parser(description="Write report.html and a picture of its charts into the directory of a run or a sweep.")
    parser.add_argument("directory", type=Path, help="run directory, or a directory that contains runs")
    args = parser.parse_args()
    with complaining():
        if not args.directory.is_dir():
            raise InputError(f"{args.directory}: no such directory")
        print(printable(str(write_report(args.directory))))


if __name__ == "__main__":
    main()
