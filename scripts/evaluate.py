"""Test a run again: python scripts/evaluate.py RUN_DIR [data.root=FOLDER]"""

import json
from pathlib import Path

from runwright.config.arguments import Parser, complaining

CONF = Path(__file__).resolve().parents[1] / "conf"


def main() -> None:
    parser = Parser(description="Evaluate a run's weights on its test set, and print the metrics as JSON.")
    parser.add_argument("run_dir", type=Path, help="run directory, which may have been moved")
    parser.add_argument("overrides", nargs="*", metavar="data.key=value", help="replaces a recorded value")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--download", action="store_true", help="download the data set if it is missing")
    args = parser.parse_args()
    with complaining():
        from runwright.rundir.trust import read_config

        read_config(args.run_dir, CONF)  # so that errors here do not wait for the import of torch
        from runwright.reopen.run import evaluate, reopen

        run = reopen(args.run_dir, CONF, args.checkpoint, args.overrides)
        print(json.dumps(evaluate(run, args.download), indent=2))


if __name__ == "__main__":
    main()
