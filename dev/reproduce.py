"""Run the notes' experiments and write docs/results.md with its pictures: python dev/reproduce.py --seeds 3"""

import os
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import yaml
from reproduce_page import DROPOUT, OVERFIT, WITHOUT, draw, findings, metrics_of, score

from runwright.config.arguments import Parser
from runwright.config.walk import quoted
from runwright.rundir.files import MULTIRUN, REPORT, SUMMARY, SUMMARY_TABLE, SWEEP, SWEEP_PICTURE
from runwright.rundir.read import read_provenance
from runwright.sweeps.leaderboard import Row, compare, find_runs

PROJECT = Path(__file__).resolve().parents[1]
KEEP = "_target_:lightning.pytorch.callbacks.ModelCheckpoint,filename:'{epoch:03d}',save_top_k:-1"
KEEP += ",save_on_train_epoch_end:true"
KEEP_ALL = f"+callbacks.keep_all={{{KEEP}}}"
KEEP_EACH_20TH = f"+callbacks.keep_all={{{KEEP},every_n_epochs:20}}"  # as often as fashion_overfit validates
MNIST = {  # run -> the notes' figure
    "mnist_sgd": "lower than with momentum",
    "mnist_momentum": "0.9475",
    "mnist_plateau": "0.9353",
    "mnist_step": "0.9411",
    "mnist_dropout": "no figure",
    "mnist_step_epoch": "no figure",
}
DESCRIPTION = """Run the notes' experiments and write docs/results.md with its pictures. Finished runs in results/ are
kept, also when their settings have changed since; delete their folder to make them again."""
HEAD = """# Results

The experiments of the training notes, run here. `python dev/reproduce.py` writes this page; after an interruption
the same command continues. The standard deviation over seeds divides by n - 1 (ddof 1), over folds by n (ddof 0).
Accuracy is that on the test set, except for iris_linear_decay and iris_exponential_decay, which hold nothing out and
are tested on their training samples. val_loss is that of the best epoch, which is the epoch that is tested. The
MNIST runs are repeated with Fashion-MNIST instead of MNIST: the sizes are the same and the images are harder, so
accuracies are lower than in the notes.

| run | notes | here: mean (std) | over | hardware, date | command |
|---|---|---|---|---|---|"""
VERDICTS = """A claim *holds* if the means differ in the direction it says, by more than the larger of the two
standard deviations. If they are closer than that, the result is *inconclusive*. Gaps between train and test are
computed for each run."""
CAPTIONS = {
    "weight_decay": """## Weight decay

Linear regression, 200 inputs and 20 training samples, with weight decay 0 and 3; mean over the seeds.""",
    "dropout": """## Dropout

Fashion-MNIST, 784-256-256-10, ten epochs of all 60,000 training images as in the notes; "unseen" is the test set. Mean
over the seeds. Accuracy and loss on the training images are measured without dropout, on checkpoints.""",
    "dropout_overfit": """The same network in a setting in which it overfits: a tenth of the images, 800 epochs;
"unseen" are the other nine tenths. The setting was chosen for overfitting, without looking at runs with dropout: the
learning rate is the largest of 0.5, 0.2, 0.1 and 0.05 at which the network without dropout ends with a train_loss
below 0.01 from each of seeds 0, 1 and 2. At 0.5 it ended at 0.39, NaN and 0.43, so the rate is 0.2.""",
    "schedules": """## Learning rates

Each schedule of `conf/scheduler/` on the digits, 41 steps per epoch, as logged to TensorBoard; the first seed.""",
    "optimizers": """## Optimizers

The digits, each optimizer at its own rate from `conf/optimizer/`; mean over the seeds, with a band of one standard
deviation to either side. A line ends where early stopping ends the first of its seeds.""",
}


@dataclass(frozen=True)
class Setting:
    """What one command repeats over seeds; where the command sweeps `key` too, each of `values` is a row."""

    part: str
    name: str
    overrides: tuple[str, ...]
    notes: str = "no figure"
    key: str = ""
    values: tuple[str, ...] = ()
    needs: str = ""  # data set whose files must be there
    metrics: tuple[str, ...] = ("test_acc",)

    def folder(self, results: Path) -> Path:
        return results / self.name.replace(" ", "-")

    def command(self, seeds: Sequence[int], value: str = "") -> str:
        """What to type; it lacks the settings that keep more checkpoints, which change no figure."""
        fixed = [each for each in self.overrides if not each.lstrip("+").startswith("callbacks.")]
        if value:
            fixed = [*(each for each in fixed if not each.startswith(f"{self.key}=")), f"{self.key}={value}"]
        return shlex.join(["python", "scripts/train.py", "-m", *fixed, f"seed={','.join(map(str, seeds))}"])


def settings() -> list[Setting]:
    """The rows of the notes' tables, and the sweeps of conf/sweep/."""
    experiments = {name: (f"experiment={name}",) for name in MNIST}
    listed = [Setting("mnist", name, experiments[name], MNIST[name], needs="MNIST") for name in MNIST]
    for name, notes in MNIST.items():
        overrides = (*experiments[name], "data=fashion_mnist")
        listed.append(Setting("mnist", f"{name} on Fashion-MNIST", overrides, f"{notes} (MNIST)", needs="FashionMNIST"))
    for name, more in ((DROPOUT, KEEP_ALL), (OVERFIT, KEEP_EACH_20TH)):
        for suffix, without in (("", ()), (WITHOUT, ("model.dropout=0",))):
            overrides = (f"experiment={name}", *without, more)
            listed.append(Setting("dropout", name + suffix, overrides, needs="FashionMNIST"))
    metrics = ("train_loss", "test_loss", "norm/all")
    listed.append(_sweep("weight_decay", metrics, "3 shrinks the norm, lowers the test loss"))
    for name in ("iris_input_dropout", "iris_hidden_dropout"):
        overrides = ("sweep=ten_folds", f"experiment={name}")
        listed.append(Setting("iris", name, overrides, key="data.fold", values=tuple(map(str, range(10)))))
    for name in ("iris_linear_decay", "iris_exponential_decay"):
        listed.append(Setting("iris", name, (f"experiment={name}",)))
    listed += [_sweep(name, ("val_loss", "test_acc")) for name in ("annealing", "optimizers", "batch_size")]
    schedules = tuple(sorted(path.stem for path in (PROJECT / "conf" / "scheduler").glob("*.yaml")))
    overrides = ("sweep=digits_schedules", f"scheduler={','.join(schedules)}")
    return [*listed, Setting("schedules", "digits_schedules", overrides, key="scheduler", values=schedules)]


def _sweep(name: str, metrics: tuple[str, ...], notes: str = "no figure") -> Setting:
    params = yaml.safe_load((PROJECT / "conf" / "sweep" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    ((key, values),) = params.items()
    return Setting(name, name, (f"sweep={name}",), notes, key, tuple(values.split(",")), metrics=metrics)


def has_files(data_set: str) -> bool:
    """Whether the data set's four files are where litmlp.data.mnist, which takes seconds to import, looks for them."""
    root = Path(os.environ.get("DATA_ROOT", "data")).expanduser()
    folders = [root / data_set / "raw", root if data_set == "MNIST" else Path("/usr/share/datasets/fashion-mnist")]
    return any(len({path.name.removesuffix(".gz") for path in folder.glob("*-ubyte*")}) >= 4 for folder in folders)


def run_all(listed: Sequence[Setting], seeds: Sequence[int], results: Path, extra: list[str], num_jobs: int) -> int:
    """Make the runs that are missing, in `num_jobs` processes at a time; how many of those failed.

    A process makes a setting's seeds, or all values of its key for one seed.
    """
    sweeps: list[tuple[Path, list[str], str, Sequence[object]]] = []
    for setting in listed:
        folder, overrides = setting.folder(results), [*setting.overrides, *extra]
        if setting.key:
            sweeps += [(folder / f"seed={n}", [*overrides, f"seed={n}"], setting.key, setting.values) for n in seeds]
        else:
            sweeps.append((folder, overrides, "seed", seeds))
    num_threads, num_failed = max(1, (os.cpu_count() or 1) // num_jobs), 0
    with ThreadPoolExecutor(num_jobs) as pool:
        running = {pool.submit(run_missing, *sweep, num_threads): sweep[0] for sweep in sweeps}
        try:
            for i, done in enumerate(as_completed(running), 1):
                folder, failed = running[done], done.result() != 0
                num_failed += failed
                print(f"{i}/{len(sweeps)} {folder}{f' FAILED, see {folder}/output.txt' if failed else ''}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            sys.exit("interrupted; the same command continues")
    return num_failed


def run_missing(folder: Path, overrides: list[str], key: str, values: Sequence[object], num_threads: int) -> int:
    """Run a sweep into `folder`/<key>=<value> for the values that have no finished run there; the exit status."""
    missing = [value for value in values if not (folder / f"{key}={value}" / "metrics.json").is_file()]
    if not missing:
        return 0
    for value in missing:
        shutil.rmtree(folder / f"{key}={value}", ignore_errors=True)
    for name in (
        SWEEP,
        MULTIRUN,
        SUMMARY,
        SUMMARY_TABLE,
        REPORT,
        SWEEP_PICTURE,
    ):  # else the folder holds a sweep already
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    choice = f"hydra:runtime.choices.{key}" if (PROJECT / "conf" / key).is_dir() else key
    where = [f"hydra.sweep.dir={quoted(str(folder))}", f"hydra.sweep.subdir='{key}=${{{choice}}}'"]
    train = [sys.executable, str(PROJECT / "scripts" / "train.py"), "-m", *overrides, *where]
    with (folder / "output.txt").open("w") as output:
        return subprocess.run(
            [*train, f"{key}={','.join(map(str, missing))}"],
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": str(num_threads)},
        ).returncode


def rows_of(setting: Setting, results: Path) -> dict[str, Row]:
    """What is measured, by value of the setting's key. Folds are one row: mean over seeds of their mean and std."""
    folder = setting.folder(results)
    if setting.key == "data.fold":
        rows = [row for seed in sorted(folder.glob("seed=*")) for row in _finished([seed])]
        if not rows:
            return {}
        mean = {key: fmean(row.mean[key] for row in rows) for key in rows[0].mean}
        std = {key: fmean(row.std[key] for row in rows) for key in mean}
        repeats = [run for row in rows for run in row.runs]
        return {"": replace(rows[0], n=len(repeats), mean=mean, std=std, runs=repeats)}
    patterns = {value: f"seed=*/{setting.key}={value}" for value in setting.values} or {"": "seed=*"}
    return {value: row for value, pattern in patterns.items() for row in _finished(folder.glob(pattern))}


def _finished(folders: Iterable[Path]) -> list[Row]:
    """The row of the best setting there, or none."""
    return [row for row in compare(find_runs(folders)) if row.n][:1]


def table_lines(setting: Setting, rows: dict[str, Row]) -> Iterator[str]:
    for value, row in rows.items():
        runs = [metrics_of(run) for run in row.runs]
        seeds = sorted({run["seed"] for run in runs})
        over = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        if row.over == "folds":
            over = f"{row.n // len(seeds)} folds (ddof 0), averaged over {over}"
        stds = row.std if row.n > 1 else {}
        scores = ", ".join(f"{key} {score(row.mean[key], stds.get(key))}" for key in setting.metrics)
        device = f"{os.cpu_count()} cores" if runs[0]["accelerator"] == "cpu" else f"1 {runs[0]['accelerator']}"
        starts = [each["started"] for run in row.runs for each in read_provenance(Path(run))]
        date = max(starts, default="?")[:10]
        label = f"{setting.name}: {value}" if value else setting.name
        command = setting.command(seeds, value if row.over != "folds" else "")
        yield f"| {label} | {setting.notes} | {scores} | {over} | {device}, {date} | `{command}` |"


def write_page(listed: Sequence[Setting], seeds: Sequence[int], results: Path, page: Path) -> None:
    rows = {setting.name: rows_of(setting, results) for setting in listed}
    pictures: dict[str, dict[str, Sequence[str]]] = {
        name: {value: row.runs for value, row in rows[source].items()}
        for name, source in (("weight_decay",) * 2, ("schedules", "digits_schedules"), ("optimizers",) * 2)
    }
    for name, source in (("dropout", DROPOUT), ("dropout_overfit", OVERFIT)):
        if rows[source] and rows[source + WITHOUT]:
            without, with_dropout = rows[source + WITHOUT][""].runs, rows[source][""].runs
            pictures[name] = {"no dropout": without, "dropout 0.2, 0.5": with_dropout}
    page.parent.mkdir(parents=True, exist_ok=True)
    lines = [HEAD, *(line for setting in listed for line in table_lines(setting, rows[setting.name]))]
    runs = {f"{name}: {value}".removesuffix(": "): row.runs for name in rows for value, row in rows[name].items()}
    lines += [f"\n## The claims of the notes\n\n{VERDICTS}\n", *findings(runs)]
    for name, caption in CAPTIONS.items():
        if pictures.get(name):
            draw(name, pictures[name], page.parent / "img")
            lines.append(f"\n{caption}\n\n![{name}](img/{name}.png)")
    not_run = [setting for setting in listed if not rows[setting.name]]
    if not_run:
        lines.append("\n## Not run\n")
    for setting in not_run:
        why = f" (no files of {setting.needs})" if setting.needs and not has_files(setting.needs) else ""
        lines.append(f"- {setting.name}{why}: `{setting.command(seeds)}`")
    page.write_text("\n".join(lines) + "\n")


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def main() -> None:
    listed = settings()
    parts = list(dict.fromkeys(setting.part for setting in listed))
    parser = Parser(description=DESCRIPTION)
    parser.add_argument("--seeds", type=count, default=3, help="repeat each over that many seeds (default 3: 0, 1, 2)")
    parser.add_argument("--jobs", type=count, default=os.cpu_count(), help="processes side by side (default: cores)")
    parser.add_argument("--only", choices=parts, metavar="PART", help=f"run one part: {', '.join(parts)}")
    parser.add_argument("--quick", action="store_true", help="one seed, 2 epochs, all of it into results/quick/")
    args = parser.parse_args()
    seeds, extra, results, page = range(args.seeds), [], Path("results"), Path("docs/results.md")
    if args.quick:
        seeds, extra, results = range(1), ["trainer.max_epochs=2"], results / "quick"
        page = results / "results.md"
    chosen = [each for each in listed if args.only in (None, each.part) and (not each.needs or has_files(each.needs))]
    num_failed = run_all(chosen, seeds, results, extra, args.jobs)
    write_page(listed, seeds, results, page)
    print(f"wrote {page}")
    if num_failed:
        sys.exit(f"{num_failed} processes failed; the same command tries them again")


if __name__ == "__main__":
    main()
