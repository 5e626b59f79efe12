"""Exports a reopened run for other programs, with a model card."""

import inspect
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.export import Dim

from runwright.config.errors import InputError
from runwright.reopen.run import Reopened
from runwright.rundir.durable import write
from runwright.rundir.read import read_metrics, read_provenance

TOLERANCE = 1e-4  # largest allowed difference of outputs, relative to the largest output
CODE = "    "  # indent of a code block in Markdown


def export(run: Reopened, kind: str, path: Path) -> float:
    """Write the run's network, including normalisation, as `kind`, a key of `FORMATS`.

    It maps raw x, float32 (B, *sample_shape) for any B, to the model's outputs, (B, ...).

    Returns:
        The largest difference between the outputs of the file, read back, and the run's own.

    Raises:
        InputError: a package that the format needs is missing, the network's outputs are not finite, or the file's
            outputs differ from them. No file is kept.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [torch.rand(size, *run.data.sample_shape, generator=generator) for size in (2, 1, 7)]
    differences = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but some programs still read its files
        draft = Path(folder) / path.name
        outputs = [run.network(x) for x in batches]
        if not all(output.isfinite().all() for output in outputs):
            raise InputError(f"{run.checkpoint}: its outputs for random samples are not finite; not exported")
        exported = FORMATS[kind](run.network, batches[0], draft)
        for x, expected in zip(batches, outputs, strict=True):
            differences.append((exported(x) - expected).abs().max() / expected.abs().max().clamp(1))
        difference = float(torch.stack(differences).max())  # NaN if any is
        if not difference <= TOLERANCE:
            raise InputError(f"--format {kind}: its outputs differ from the run's by {difference:.1e}; not kept")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, draft.read_bytes())
    return difference


def _torchscript(network: nn.Module, x: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    torch.jit.trace(network, x).save(str(path))
    return torch.jit.load(str(path))


def _torch_export(network: nn.Module, x: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=({0: Dim("batch")},)), path)
    return torch.export.load(path).module()


def _onnx(network: nn.Module, x: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError as error:
        raise InputError(f"--format onnx: {error.name} is missing; uv sync --extra export installs it") from error
    torch.onnx.export(
        network,
        (x,),
        path,
        input_names=["x"],
        output_names=["output"],
        dynamic_shapes=({0: Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: torch.from_numpy(session.run(None, {"x": batch.numpy()})[0])


FORMATS: dict[str, Callable[[nn.Module, Tensor, Path], Callable[[Tensor], Tensor]]] = {
    "torchscript": _torchscript,
    "onnx": _onnx,
    "torch.export": _torch_export,
}


def model_card(run: Reopened, run_dir: Path) -> str:
    """Markdown: the network's input and output, its training data, its metrics, and how it was trained."""
    metrics, origin = read_metrics(run_dir), (read_provenance(run_dir) or [{}])[-1]
    data, model = type(run.data), run.task.model
    shape = ", ".join(map(str, run.data.sample_shape))
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    lines = [
        f"# {run.cfg.get('name', data.__name__)}",
        "",
        f"- Network: `{type(model).__name__}`, {num_weights:,} weights, from `{run.checkpoint.name}`",
        f"- Input: float32, (batch, {shape}), values as in the data set's files; normalisation is part of the network",
        f"- Output: float32, ({', '.join(['batch', *map(str, run.output_shape)])}): {run.task.outputs_are}",
        f"- Data: `{data.__name__}`. {(inspect.getdoc(data) or '').splitlines()[0]}",
        f"- Trained: {origin.get('started', 'unknown when')}, {metrics.get('epochs', 'not all its')} epochs, "
        f"seed {run.cfg.get('seed')}, commit {(origin.get('git') or {}).get('commit', 'unknown')}",
        "",
        "## Metrics",
        "",
        "| metric | value |",
        "|---|---|",
    ]
    scores: dict[str, Any] = {**metrics.get("fit", {}), **metrics.get("test", {})}
    lines += [f"| {key} | {value} |" for key, value in sorted(scores.items()) if not key.startswith("norm/")]
    lines += ["", "## Versions", "", indent(json.dumps(origin.get("versions", {}), indent=2), CODE)]
    return "\n".join([*lines, "", "## Configuration", "", indent(OmegaConf.to_yaml(run.cfg).strip(), CODE), ""])
