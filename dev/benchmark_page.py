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

How fast a small network trains here, compared with a plain PyTorch loop and other libraries, and where the time goes.
The two commands below write this page; run them on your machine and compare.

```bash
python dev/benchmark.py --json performance.json # uv sync --group benchmark adds Keras and JAX
python dev/benchmark_page.py performance.json
```

Measured on {date}: {machine}. 784-200-200-10 with LeakyReLU, SGD with
momentum 0.9, 55,000 images of 28 x 28 bytes. Ours is the default run: all default callbacks, TensorBoard, normalisation
of each batch. Figures are medians [smallest, largest] of {repeats} repeats, in which the candidates take turns; a ratio
is the median of the ratios within each repeat."""

COSTS = """\
## Where the time of a step goes

![Time per step by cause](img/step_time.png)

Milliseconds per step at batch 64:

{table}

- Lightning's own step calls a dozen hooks of every callback, the module and the strategy although nobody defined them,
  builds closures and inspects signatures: about 1,250 Python calls. With `step_loop=direct`, the default,
  `src/runwright/loop/step.py` does the same, to the same bits, in about 260 calls, of which torch makes more than half.
  If a run has several devices, a precision other than 32-true, accumulated or clipped gradients, a profiler or a hook
  inside the step, Lightning's own step runs. `step_loop=lightning` always uses Lightning's.
- Lightning frees the gradients of the last step after the forward pass. Here, as in a plain loop, gradients are cleared
  before the forward pass, so that their memory is still in the cache when the activations need some. This saves 4 % of
  a step at batch 200.
- The direct step would be unnecessary if Lightning found out once per epoch which hooks are defined, and computed a
  callback's `state_key` only for a profiler that uses it.
- Images are gathered as bytes by `index_select`, which copies whole rows, and normalised in place.
- The loss is logged every `trainer.log_every_n_steps` batches; the mean over the epoch is kept without a metric update
  per step."""

MISSED = """\
## Aims that are missed, and why

- **Keras on JAX at batch 64.** It compiles the step into one program. PyTorch calls some 40 operations one by one from
  Python, so the plain loop is slower than Keras too, and nothing built on eager PyTorch can be much faster than the
  plain loop. With larger batches, arithmetic outweighs calls.
- **`torch.compile`** does not change this on a CPU. With the model compiled, a bare step took 1.15 ms instead of 0.85
  at batch 64 (torch 2.15, 2026-11-21, 2 cores). Gradients and update compiled as one function, by `torch.func`, took
  0.63 ms (at batch 200, 1.19 instead of 1.52), but that no longer uses `torch.optim`: Dynamo does not trace the `step`
  of an optimizer that a schedule has wrapped, and breaks the graph there. Once it does, a compiled step may become a
  choice here.
- **Evaluating 10,000 images** takes some 27 ms, of which the forward passes take 20. The rest is Lightning's start and
  end of an evaluation and its metric updates, a few milliseconds for a set of any size (a set is normalised once,
  before its first pass). Two epochs with validation include the same, and checkpoints written to the disk.
- **A further job of a sweep**: a third of the time is Hydra composing the job's configuration, for which it reads and
  parses every YAML file again. The rest is building the run, validation, the test and its pictures, and the records
  on the disk, some 0.02 to 0.05 s each.
- **Memory** was measured with all extras installed; Hydra imports their plugins at every start, and scikit-learn
  imports pandas, which comes with them. Without the extras it was 68 MB (on 2026-11-22), and `--help` took two thirds
  of its time.
- **`--help`** takes about a second with those plugins. Half of that is Hydra's own listing of groups and choices, which
  copies their structured configurations once for each group."""

ADVICE = """\
## How cost grows

![Time per step as the run grows](img/growth.png)

## Advice

- **Batch size**: the overhead of a step does not depend on the size of its batch, so batches of 16 pay it four times as
  often as batches of 64. On a CPU, batches larger than about 1,000 give no more images per second.
- **Logging**: `trainer.log_every_n_steps=1` writes every loss and learning rate; the plot shows how much time that
  takes. Callbacks without a hook per batch take no time per step.
- **Workers** (`num_workers` of a DataLoader) help if the data do not fit in memory and take longer to read and decode
  than a step takes to compute. The data here fit, and no worker is used.
- **A GPU** helps if a step computes for longer than some 50 kernels take to launch: from widths or batches of a few
  thousand. Below that, `trainer=gpu_fast` launches the model's kernels as one CUDA graph. This page has no figures of
  a GPU.
- `debug=profile` shows where your own step spends its time: it prints the ten costliest items and writes a trace for
  ui.perfetto.dev."""


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
        "## Evaluation, start-up, sweeps, memory",
        table(["what", "measured", "aim"], list(other_rows(found))),
        MISSED,
        COSTS.format(table=table(["run", "ms"], by_cause)),
        ADVICE,
    ]
    (DOCS / "performance.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
