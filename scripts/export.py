"""Export a run's network: python scripts/export.py RUN_DIR --format onnx"""

from pathlib import Path

from runwright.config.arguments import Parser, complaining
from runwright.config.errors import InputError, printable

CONF = Path(__file__).resolve().parents[1] / "conf"
SUFFIXES = {"torchscript": ".pt", "onnx": ".onnx", "torch.export": ".pt2"}


def main() -> None:
    parser = Parser(description="Write a run's network, including normalisation, and a model card next to it.")
    parser.add_argument("run_dir", type=Path, help="run directory, which may have been moved")
    parser.add_argument("--format", choices=SUFFIXES, required=True)
    parser.add_argument("--output", type=Path, help="default: RUN_DIR/export/model with the format's suffix")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    args = parser.parse_args()
    output = args.output or args.run_dir / "export" / f"model{SUFFIXES[args.format]}"
    with complaining():
        from runwright.rundir.trust import check_links, read_config

        read_config(args.run_dir, CONF)  # so that errors here do not wait for the import of torch
        if args.output is None:
            check_links(args.run_dir)
        if output.suffix != SUFFIXES[args.format]:
            raise InputError(f"--output {output}: must end in {SUFFIXES[args.format]}")
        from runwright.reopen.export import export, model_card
        from runwright.reopen.run import reopen
        from runwright.rundir.durable import write

        run = reopen(args.run_dir, CONF, args.checkpoint)
        card = model_card(run, args.run_dir)
        difference = export(run, args.format, output)
        card_path = output.with_suffix(".md")
        write(card_path, printable(card).encode())
        print(printable(f"{output}: outputs within {difference:.1e} of the run's; model card: {card_path}"))


if __name__ == "__main__":
    main()
