"""Write docs/performance.md and its plots from what was measured:
python dev/benchmark.py --json performance.json && python dev/benchmark_page.py performance.json
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
OURS, OTHER, REST = "#0072B2", "#D55E00", "#999999"
TARGETS = {"64": 0.80, "200": 0.90, "1000": 0.95}

HEAD = """\
# Speed

How fast a small network trains here, beside a plain PyTorch loop and other libraries, and where the time goes. The page
is written by the two commands below; run them on your machine and compare.

```bash
python dev/benchmark.py --json performance.json # uv sync --group benchmark adds Keras and JAX
python dev/benchmark_page.py performance.json
```

Measured on {date}: {machine}. 784-200-200-10 with LeakyReLU, SGD with
momentum 0.9, 55,000 images of 28 x 28 bytes. Ours is the default run: all default callbacks, TensorBoard, normalisation
of each batch. Medians [smallest, largest] of {repeats} repeats in turn; a ratio is the median of ratios of neighbours
in time."""

COSTS = """\
## Where the time of a step goes

![Time per step by cause](img/step_time.png)

Milliseconds per step at batch 64:

{table}

- Lightning's own step asks every callback, the module and the strategy for a dozen hooks that nobody defined, builds
  closures and inspects signatures: about 1,250 Python calls. `src/litmlp/training_epoch.py` does the same, to the same
  bits, with about 260, of which torch makes more than half. Where a run has several devices, another precision than
  32-true, accumulated or clipped gradients, a profiler or a hook from inside the step, Lightning's own step runs.
- Lightning frees the last step's gradients after the forward pass. Freed before it, as in a plain loop, their memory
  is still in the cache when the activations need some: 4 % of a step at batch 200.
- For this to be unnecessary, Lightning would have to find out once per epoch which hooks are defined, as it could, and
  to compute a callback's `state_key` only for a profiler that uses it.
- Images are gathered as bytes by `index_select`, which copies whole rows, and normalised in place.
- The loss is logged every `trainer.log_every_n_steps` batches; the epoch's mean is kept without a metric update per
  step."""

MISSED = """\
## What falls short of its aim, and why

- **Keras on JAX at batch 64.** It compiles the step into one program. PyTorch calls some 40 operations one by one from
  Python, so the plain loop is behind it too, and what is built on eager PyTorch cannot be far ahead of that. With
  larger batches arithmetic outweighs calls.
- **`torch.compile`** does not change this on a CPU. With the model compiled a bare step took 1.15 ms in place of 0.85
  at batch 64 (torch 2.15, 2026-11-21, 2 cores). Gradients and update compiled as one function, by `torch.func`, took
  0.63 ms (1.19 in place of 1.52 at batch 200), but that is no longer `torch.optim`: Dynamo does not trace the `step` of
  an optimizer that a schedule has wrapped, and breaks the graph there. Once it does, a compiled step may be worth a
  choice here.
- **Evaluating 10,000 images** takes some 27 ms, 20 of it the forward passes. The rest is Lightning's begin and end of
  an evaluation and its updates of metrics, a few milliseconds whatever the size of the set (a set is normalised once,
  before its first pass). Two epochs with validation include the same, and checkpoints on the disk.
- **A further job of a sweep**: a third of it is Hydra composing the job's configuration, for which it reads and parses
  every YAML file anew; the rest is the construction of a run, its validation, its test with the pictures of it, and
  its records on the disk, some 0.02 to 0.05 s each.
- **Memory** was measured with all extras installed, whose plugins Hydra imports at every start, and whose pandas
  scikit-learn imports too. Without them it was 68 MB (on 2026-11-22), and `--help` took two thirds of its time.
- **`--help`**, with those plugins too, takes about a second, half of it Hydra's own listing of groups and choices,
  which copies their structured configurations once for each group."""

ADVICE = """\
## How cost grows

![Time per step as the run grows](img/growth.png)

## Advice

- **Batch size**: the overhead of a step is the same whatever its batch, so that batches of 16 pay it four times as
  often as batches of 64. On a CPU, larger batches than about 1,000 bring no more images per second.
- **Logging**: `trainer.log_every_n_steps=1` writes every loss and rate; the plot shows what that costs. Callbacks that
  define no hook per batch cost nothing per step.
- **Workers** (`num_workers` of a DataLoader) pay for data that do not fit in memory and take longer to read and decode
  than a step takes to compute. The data here fit, and no worker is used.
- **A GPU** pays where a step computes for longer than some 50 kernels take to launch: from widths or batches of a few
  thousand. Below that, `trainer=gpu_fast` has the model's kernels launched as one CUDA graph. This page has no figures
  of a GPU.
- `debug=profile` shows where your own step spends its time."""


def spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def training_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    for size, seconds in found["training"].items():
        for name, values in seconds.items():
            ratio, target = "", ""
            if name != "ours":
                ratio = spread([other / own for other, own in zip(values, seconds["ours"], strict=True)], 2)
            if name == "plain loop":
                target = f">= {TARGETS[size]:.2f}" if size in TARGETS else ""
            elif name in ("Keras on JAX", "scikit-learn", "usual pipeline"):
                target = {"Keras on JAX": "> 1", "scikit-learn": ">= 1.2", "usual pipeline": ">= 6"}[name]
            elif name == "jax.lax.scan" and size.startswith("1000"):
                target = ">= 0.8"
            yield [size, name, spread([found["num_train"] / value for value in values], 0), ratio, target]


def other_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    own, plain = found["two_epochs"].values()
    ratios = [a / b for a, b in zip(own, plain, strict=True)]
    yield ["two epochs with validation, time against a plain loop's", spread(ratios, 2), "<= 1.15"]
    own, plain = found["evaluation"].values()
    ratios = [b / a for a, b in zip(own, plain, strict=True)]
    yield ["images/s of evaluating 10,000 images, against a plain forward pass", spread(ratios, 2), ">= 0.9"]
    answers = {name: median(values) for name, values in found["answers"].items()}
    for name in ("--help", "--cfg job", "a typo"):
        beyond = answers[name] - answers["bare Hydra --help"]
        yield [f"`{name}`, s (beyond a bare Hydra application)", f"{answers[name]:.2f} ({beyond:.2f})", "< 1 (or 0.3)"]
    beyond = answers["first step"] - answers["import torch, lightning"]
    yield ["command to first step beyond `import torch, lightning`, s", f"{beyond:.2f}", "< 1"]
    job = median(found["further_jobs"]["a further job"])
    yield ["a further job of a sweep: one step, validation, test, s", f"{job:.2f}", "< 0.3"]
    memory = found["memory"]
    beyond, imports = (
        memory["ours"] - memory["plain loop"],
        memory["imports of ours"] - memory["imports of the plain loop"],
    )
    yield ["peak memory beyond a plain loop's, MB (of it imports)", f"{beyond:,.0f} ({imports:,.0f})", "< 150"]


def plot_causes(causes: dict[str, list[float]], num_steps: int) -> None:
    import matplotlib.pyplot as plt

    milliseconds = {name: 1000 * median(values) / num_steps for name, values in causes.items()}
    colors = [OURS if name.startswith("ours") else REST for name in milliseconds]
    colors = [OTHER if "own step" in name else color for name, color in zip(milliseconds, colors, strict=True)]
    figure, axes = plt.subplots(figsize=(8, 2.8), layout="constrained")
    bars = axes.barh(list(milliseconds), list(milliseconds.values()), color=colors)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="milliseconds per step, batch 64", xlim=(0, 1.15 * max(milliseconds.values())))
    figure.savefig(DOCS / "img" / "step_time.png", dpi=120)


def plot_growth(growth: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(1, len(growth), figsize=(15, 3), layout="constrained")
    for axes, (what, by_value) in zip(grid, growth.items(), strict=True):
        for name, color in (("ours", OURS), ("plain loop", OTHER)):
            x, y = list(map(int, by_value)), [1000 * median(each[name]) for each in by_value.values()]
            axes.plot(x, y, "o-", color=color, label=name)
        axes.set(xlabel=what, xscale="log", ylim=(0, 1.1 * axes.dataLim.ymax))
        axes.set_xticks(x, list(by_value))
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("milliseconds per step")
    grid[0].legend(frameon=False)
    figure.savefig(DOCS / "img" / "growth.png", dpi=110)


def main() -> None:
    found = json.loads(Path(sys.argv[1]).read_text())
    if "causes" not in found:
        sys.exit("measured with --quick, which leaves out what the page shows")
    (causes,) = found["causes"].values()
    num_steps = -(-found["num_train"] // 64)
    plot_causes(causes, num_steps)
    plot_growth(found["growth"])
    repeats = len(next(iter(found["training"].values()))["ours"])
    by_cause = [[name, spread([1000 * each / num_steps for each in values], 2)] for name, values in causes.items()]
    parts = [
        HEAD.format(**found, repeats=repeats),
        "## Training",
        table(["batch size", "who", "images/s", "ours / it", "aim"], list(training_rows(found))),
        "## All around it",
        table(["what", "measured", "aim"], list(other_rows(found))),
        MISSED,
        COSTS.format(table=table(["run", "ms"], by_cause)),
        ADVICE,
    ]
    (DOCS / "performance.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
