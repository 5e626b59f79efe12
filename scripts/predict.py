"""Predict samples in files: python scripts/predict.py RUN_DIR --input FILE --output FILE"""

from pathlib import Path

from litmlp.runs.errors import InputError, Parser, complaining


def main() -> None:
    parser = Parser(description="Say what a run's network makes of samples; no training data are needed.")
    parser.add_argument("run_dir", type=Path, help="run directory, which may have been moved")
    parser.add_argument("--input", type=Path, nargs="+", required=True, help=".csv, .npy, .npz, or images")
    parser.add_argument("--output", type=Path, required=True, help=".csv or .npz: classes with probabilities")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    args = parser.parse_args()
    with complaining():
        from litmlp.runs.trust import read_config

        read_config(args.run_dir)  # answers before torch is imported, where it can
        if args.output.suffix.lower() not in (".csv", ".npz"):
            raise InputError(f"--output {args.output}: must end in .csv or .npz")
        for path in args.input:
            if not path.is_file():
                raise InputError(f"--input {path}: no such file")
            if args.output.exists() and path.samefile(args.output):
                raise InputError(f"--output {args.output}: would replace the input")
        import torch

        from litmlp.runs.predict import predict, read_samples, write_predictions
        from litmlp.runs.reopen import reopen

        run = reopen(args.run_dir, args.checkpoint)
        max_value, names = getattr(run.data, "max_value", 1.0), getattr(run.data, "feature_names", ())
        x = torch.cat([read_samples(path, run.data.sample_shape, max_value, names) for path in args.input])
        write_predictions(args.output, predict(run, x), run.is_classifier)
        print(f"{len(x):,} samples by {run.checkpoint}: {args.output}")


if __name__ == "__main__":
    main()
