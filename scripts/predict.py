"""Predict samples in files: python scripts/predict.py RUN_DIR --input FILE --output FILE"""

from functools import partial
from pathlib import Path

from runwright.config.arguments import Parser, complaining
from runwright.config.errors import InputError, printable

CONF = Path(__file__).resolve().parents[1] / "conf"


def main() -> None:
    parser = Parser(description="Predict samples in files with a run's network; training data are not needed.")
    parser.add_argument("run_dir", type=Path, help="run directory, which may have been moved")
    parser.add_argument("--input", type=Path, nargs="+", required=True, help=".csv, .npy, .npz, or images")
    parser.add_argument("--output", type=Path, required=True, help=".csv or .npz: classes with probabilities")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    args = parser.parse_args()
    with complaining():
        from runwright.rundir.trust import read_config

        read_config(args.run_dir, CONF)  # so that errors here do not wait for the import of torch
        if args.output.suffix.lower() not in (".csv", ".npz"):
            raise InputError(f"--output {args.output}: must end in .csv or .npz")
        for path in args.input:
            if not path.is_file():
                raise InputError(f"--input {path}: no such file")
            if args.output.exists() and path.samefile(args.output):
                raise InputError(f"--output {args.output}: would replace the input")
        import torch

        from runwright.reopen.predict import predict, read_samples, write_predictions
        from runwright.reopen.run import reopen

        run = reopen(args.run_dir, CONF, args.checkpoint)
        data = run.data
        read = partial(
            read_samples, shape=data.sample_shape, max_value=data.max_value, feature_names=data.feature_names
        )
        x = torch.cat([read(path) for path in args.input])
        write_predictions(args.output, predict(run, x))
        print(printable(f"{len(x):,} samples by {run.checkpoint}: {args.output}"))


if __name__ == "__main__":
    main()
