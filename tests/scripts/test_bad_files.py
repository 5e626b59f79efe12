"""Files that are not what they should be cost a sentence that names them, and leave nothing behind."""

import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CONF, PACKAGE, Result, class_of
from mutations import mutations, refusal
from omegaconf import OmegaConf
from PIL import Image

from runwright.config.errors import InputError
from runwright.reopen.predict import read_samples
from runwright.rundir import checkpoint
from runwright.rundir.checkpoint import DIGEST, END_OF_ZIP, seal
from runwright.rundir.trust import check_objects, read_config


def npy(array: Any, **options: Any) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays: Any) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def image(size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "L", **options: Any) -> bytes:
    buffer = BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


SIDEWAYS = Image.Exif()
SIDEWAYS[274] = 6
RGB16 = b"".join(
    [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),  # which Pillow does not write
        chunk(b"IDAT", zlib.compress(8 * (b"\0" + 8 * 6 * b"\x7f"))),
        chunk(b"IEND", b""),
    ]
)
IRISES = np.ones((3, 4), np.float32)
PROMISE = npy(np.ones((1000, 4))).replace(b"(1000, 4)", b"(9**9, 4)")
HUGE = npy(np.ones((10**7, 1), np.uint8))[:128].replace(b"(10000000, 1)", b"(99999999, 4)")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(mine) (w) file\n%%EOF\n"

# What predict.py is given -> content, and what the sentence says besides the file's name. 4 features are right.
SAMPLES: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "no samples"),
    "header alone.csv": (b"a,b,c,d\n", "no samples"),
    "blank lines.csv": (b"\n\n\n", "no samples"),
    "ragged.csv": (b"1,2,3,4\n1,2,3\n", "line 2 has 3 fields"),
    "three columns.csv": (b"1,2,3\n", "(4,)"),
    "words.csv": (b"1,2,3,4\n1,2,three,4\n", "three"),
    "two headers.csv": (b"a,b,c,d\na,b,c,d\n1,2,3,4\n", "'a'"),
    "semicolons.csv": (b"1;2;3;4\n1;2;3;4\n", "1;2;3;4"),
    "missing value.csv": (b"1,2,3,4\n1,,3,4\n", "line 2, column 2: ''"),
    "nan.csv": (b"1,2,3,4\n1,nan,3,4\n", "line 2, column 2: 'nan'"),
    "overflow.csv": (b"1,2,3,1e400\n", "line 1, column 4: '1e400'"),
    "zero byte.csv": (b"1,2,3,4\n1,2,\0,4\n", "line 2, column 3"),
    "NA first.csv": (b"1,NA,3,4\n1,2,3,4\n", "line 1, column 2: 'NA' is not a number"),
    "nothing first.csv": (b"1,,3,4\n1,2,3,4\n", "line 1, column 2: '' is not a number"),
    "a whole line of NA.csv": (b"NA,NA,NA,NA\n1,2,3,4\n", "line 1, column 1: 'NA'"),
    "a whole line of nothing.csv": (b",,,\n1,2,3,4\n", "line 1, column 1: ''"),
    "a whole line of gaps.csv": (b"?,-,N/A,null\n1,2,3,4\n", "line 1, column 1: '?'"),
    "hex first.csv": (b"0x1,0x2,0x3,0x4\n1,2,3,4\n", "line 1, column 1: '0x1'"),
    "decimal commas first.csv": (b'"1,5","2,5","3,5","4,5"\n', "line 1, column 1: '1,5'"),
    "decimal commas.csv": (b"1,5;2,5;3,5;4,5\n", "line 1 has 5 fields"),
    "units first.csv": (b"1cm,2cm,3cm,4cm\n", "line 1, column 1: '1cm'"),
    "underscores.csv": (b"1,2,3,4\n1_0,2,3,4\n", "line 2, column 1: '1_0'"),
    "underscores first.csv": (b"1_0,2_0,3_0,4_0\n1,2,3,4\n", "line 1, column 1: '1_0'"),
    "other digits.csv": ("1,2,3,4\n1,٢,3,4\n".encode(), "line 2, column 2: '٢'"),
    "infinite first.csv": (b"inf,inf,inf,inf\n1,2,3,4\n", "line 1, column 1: 'inf'"),
    "beyond float32.csv": (b"1,2,3,4\n1,-1e39,3,4\n", "line 2, column 2: '-1e39'"),
    "numbered columns.csv": (b"0,1,2,3\n5,6,7,8\n", "line 1 numbers the columns"),
    "an index.csv": (b",a,b,c,d\n0,1,2,3,4\n", "line 1 has 5 fields"),
    "one name twice.csv": (b"a,b,b,d\n1,2,3,4\n", "two columns 'b'"),
    "a gap.csv": (b"1,2,3,4\n\n1,2,3,4\n", "line 2 has 0 fields"),
    "a field of two lines.csv": (b'1,2,3,4\n"1\n",2,3,4\n1,2,x,4\n', "line 4, column 3: 'x'"),
    "utf-16.csv": ("1,2,3,4\n".encode("utf-16"), "cannot be read"),
    "latin-1.csv": ("größe,b,c,d\n1,2,3,4\n".encode("latin-1"), "cannot be read"),
    "open quote.csv": (b'1,2,3,"4\n', "cannot be read"),
    "long field.csv": (b"1,2,3," + b"4" * 200_000 + b"\n", "cannot be read"),
    "binary.csv": (bytes(range(256)), "cannot be read"),
    "an image.csv": (image(), "cannot be read"),
    "empty.npy": (b"", "cannot be read"),
    "truncated.npy": (npy(IRISES)[:-1], "cannot be read"),
    "magic alone.npy": (npy(IRISES)[:8], "cannot be read"),
    "text.npy": (b"1,2,3,4\n", "cannot be read"),
    "another version.npy": (npy(IRISES).replace(b"\x01\x00v", b"\x09\x00v"), "cannot be read"),
    "code for a shape.npy": (PROMISE, "cannot be read"),
    "a promise.npy": (HUGE, "cannot be read"),
    "a pickle.npy": (pickle.dumps([1, 2, 3, 4]), "cannot be read"),
    "objects.npy": (npy(np.array([[1, None]], object), allow_pickle=True), "cannot be read"),
    "text array.npy": (npy(np.array([["a", "b", "c", "d"]])), "must hold numbers"),
    "complex.npy": (npy(IRISES.astype(complex)), "must hold numbers"),
    "dates.npy": (npy(np.zeros((1, 4), "M8[s]")), "must hold numbers"),
    "records.npy": (npy(np.zeros(1, [("a", "f4"), ("b", "f4")])), "must hold numbers"),
    "a number.npy": (npy(np.float32(1)), "(4,)"),
    "one axis.npy": (npy(np.ones(4)), "(4,)"),
    "five columns.npy": (npy(np.ones((3, 5))), "(3, 5)"),
    "transposed.npy": (npy(np.ones((3, 2, 2))), "(3, 2, 2)"),
    "no samples.npy": (npy(np.ones((0, 4))), "no samples"),
    "infinite.npy": (npy(np.full((2, 4), np.inf)), "sample 0"),
    "beyond float32.npy": (npy(np.full((2, 4), 1e300)), "sample 0"),
    "an npz.npy": (npz(x=IRISES), "must hold"),
    "empty.npz": (b"", "cannot be read"),
    "no array.npz": (npz(), "one array"),
    "two arrays.npz": (npz(x=IRISES, y=IRISES), "one array"),
    "truncated.npz": (npz(x=IRISES)[:-30], "cannot be read"),
    "altered.npz": (npz(x=IRISES).replace(b"\0\0\x80?", b"\0\0\x80@"), "cannot be read"),
    "an npy.npz": (npy(IRISES), "cannot be read"),
    "an image.png": (image(), "not images"),
    "no suffix": (b"1,2,3,4\n", "must be .csv"),
    "another.txt": (b"1,2,3,4\n", "must be .csv"),
    "a checkpoint.pt": (b"PK\3\4", "must be .csv"),
}
IMAGES: dict[str, tuple[bytes, str]] = {  # 8 x 8 is right
    "wide.png": (image((9, 8)), "9 by 8"),
    "large.png": (image((5000, 5000)), "5000 by 5000"),
    "truncated.png": (image((8, 8))[:40], "cannot be read"),
    "empty.png": (b"", "cannot be read"),
    "text.jpg": (b"hello", "cannot be read"),
    "a program.png": (EPS, "cannot be read"),
    "a bomb.png": (image()[:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + image()[24:], "cannot be read"),
    "truncated.jpg": (image(kind="JPEG")[:-60], "cannot be read"),
    "a palette.png": (image(mode="P"), "palette"),
    "transparent.png": (image(mode="RGBA"), "transparent"),
    "transparent grey.png": (image(mode="LA"), "transparent"),
    "transparent black.png": (image(transparency=0), "transparent"),
    "transparent palette.gif": (image(kind="GIF", mode="P", transparency=0), "palette"),
    "transparent.webp": (image(kind="WEBP", mode="RGBA"), "transparent"),
    "16 bits.png": (image(mode="I;16"), "I;16"),
    "16 bits of colour.png": (RGB16, "16 bits"),
    "32 bits.tif": (image(kind="TIFF", mode="I"), "mode is I"),
    "floats.tif": (image(kind="TIFF", mode="F"), "mode is F"),
    "for print.jpg": (image(kind="JPEG", mode="CMYK"), "CMYK"),
    "sideways.jpg": (image(kind="JPEG", exif=SIDEWAYS), "orientation 6"),
    "sideways.png": (image(exif=SIDEWAYS), "orientation 6"),
    "moving.png": (image(save_all=True, append_images=[Image.new("L", (8, 8), 200)]), "2 pictures"),
    "moving.webp": (
        image(kind="WEBP", mode="RGB", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
        "2 pictures",
    ),
    "pages.tif": (image(kind="TIFF", save_all=True, append_images=[Image.new("L", (8, 8), 200)]), "2 pictures"),
    "a vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>", "cannot be read"),
}


@pytest.mark.parametrize("name", [*SAMPLES, *IMAGES])
def test_samples_that_are_none(tmp_path: Path, name: str) -> None:
    content, expected = SAMPLES.get(name) or IMAGES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path / name, (4,) if name in SAMPLES else (1, 8, 8), 16.0)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{tmp_path / name}: ")
    assert expected in message
    assert len(message) < 400


NAMES = ("width", "height", "1st floor", "-")


@pytest.mark.parametrize(
    "header",
    [
        ("width", "height", "1st floor", "-"),
        ("-", "width", " 1st floor ", "height"),
        ("1st floor", "-", "height", "width"),
    ],
)
def test_columns_are_found_by_their_names(tmp_path: Path, header: tuple[str, ...]) -> None:
    values = {"width": 1.0, "height": 2.0, "1st floor": 3.0, "-": 4.0}
    lines = [",".join(header), *[",".join(str(values[name.strip()]) for name in header)] * 2]
    (tmp_path / "x.csv").write_text("\ufeff" + "\n".join(lines) + "\n\n")
    x = read_samples(tmp_path / "x.csv", (2, 2), 1.0, NAMES)
    assert x.tolist() == [[[1, 2], [3, 4]]] * 2


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("width,height,1st floor,age", "unknown columns: 'age'; missing: '-'"),
        ("a,b,c,d", "unknown columns: 'a', 'b', 'c', 'd'; missing: 'width', 'height', '1st floor', '-'"),
        ("Width,height,1st floor,-", "unknown columns: 'Width'; missing: 'width'"),
        ("width,width,height,-", "two columns 'width'"),
        ("width,height,-", "line 1 has 3 fields"),
        ("width,height,1st floor,-,class", "line 1 has 5 fields"),
        ("width,height,1st floor,4", "line 1, column 1: 'width' is not a number"),
    ],
)
def test_columns_of_other_names_are_refused(tmp_path: Path, header: str, expected: str) -> None:
    (tmp_path / "x.csv").write_text(f"{header}\n1,2,3,4\n")
    with pytest.raises(InputError) as caught:
        read_samples(tmp_path / "x.csv", (4,), 1.0, NAMES)
    assert str(caught.value).startswith(f"{tmp_path / 'x.csv'}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3,4\n",
        "a,b,c,d\n1,2,3,4\n",
        "1stFlrSF,2ndFlrSF,NA,x\n1,2,3,4\n",
        " 1 ,+2.0,.3e1,4.\n",
        "1E0,20e-1,3,4\r\n\r\n",
        '"1","2","3","4"',
        "1,2,\xa03,4\n",
    ],
)
def test_samples_that_are_some(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert read_samples(tmp_path / "x.csv", (4,), 1.0).tolist() == [[1, 2, 3, 4]]
    if "x" not in text:
        assert read_samples(tmp_path / "x.csv", (4,), 1.0, ("a", "b", "c", "d")).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("names", [["0", "1", "2", "3"], ["9", "8", "7", "6"]])
def test_names_may_be_numbers(tmp_path: Path, names: list[str]) -> None:
    (tmp_path / "x.csv").write_text(",".join(names) + "\n1,2,3,4\n")
    assert read_samples(tmp_path / "x.csv", (4,), 1.0, names).tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "L"), ("PNG", "RGB"), ("PNG", "1"), ("JPEG", "RGB"), ("WEBP", "RGB")]
)
def test_plain_pictures_are_read(tmp_path: Path, kind: str, mode: str) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    Image.new("L", (8, 8), 255).convert(mode).save(path, kind)
    assert read_samples(path, (1, 8, 8), 16.0).unique().tolist() == pytest.approx([16.0], abs=0.1)


def broken(name: str, content: bytes | None) -> Callable[[Path], None]:
    """Replaces a file of the run directory, or removes it."""

    def change(run_dir: Path) -> None:
        if content is None:
            (run_dir / name).unlink()
        else:
            (run_dir / name).write_bytes(content)

    return change


def without_checkpoints(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "checkpoints")


def with_a_folder_for_a_checkpoint(run_dir: Path) -> None:
    broken("checkpoints/last.ckpt", None)(run_dir)
    (run_dir / "checkpoints" / "last.ckpt").mkdir()


def with_a_link_to_nothing(run_dir: Path) -> None:
    broken("config.yaml", None)(run_dir)
    (run_dir / "config.yaml").symlink_to("nowhere")


def with_a_larger_file_than_memory(run_dir: Path) -> None:
    with (run_dir / "checkpoints" / "last.ckpt").open("wb") as file:
        file.truncate(2**42)


def nothing(run_dir: Path) -> None:
    pass


OTHER_DATA = OmegaConf.load(CONF / "data" / "digits.yaml")._target_
MODEL = OmegaConf.load(CONF / "model" / "mlp.yaml")._target_
CSV = ("--input", "x.csv", "--output", "y.csv")
# script and its arguments, what is done to the run directory before, and what the sentence says.
COMMANDS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], None], str]] = {
    "evaluate nothing": ("evaluate", (), nothing, "run_dir"),
    "evaluate a missing directory": ("evaluate", ("nowhere",), nothing, "nowhere: no run directory"),
    "evaluate a file": ("evaluate", ("x.csv",), nothing, "x.csv: no run directory"),
    "evaluate an empty directory": ("evaluate", ("RUN/checkpoints",), nothing, "no config.yaml"),
    "evaluate without config": ("evaluate", ("RUN",), broken("config.yaml", None), "no config.yaml"),
    "evaluate with a dangling config": ("evaluate", ("RUN",), with_a_link_to_nothing, "no config.yaml"),
    "evaluate with a truncated config": ("evaluate", ("RUN",), broken("config.yaml", b"data:\n  _tar"), "config.yaml"),
    "evaluate without checkpoints": ("evaluate", ("RUN",), without_checkpoints, "no checkpoints"),
    "evaluate without last.ckpt": ("evaluate", ("RUN",), broken("checkpoints/last.ckpt", None), "no such checkpoint"),
    "evaluate a folder": ("evaluate", ("RUN",), with_a_folder_for_a_checkpoint, "last.ckpt: not a plain file"),
    "evaluate an empty checkpoint": ("evaluate", ("RUN",), broken("checkpoints/last.ckpt", b""), "last.ckpt"),
    "evaluate a huge checkpoint": ("evaluate", ("RUN",), with_a_larger_file_than_memory, "last.ckpt"),
    "evaluate with broken metrics": ("evaluate", ("RUN",), broken("metrics.json", b"{"), "metrics.json"),
    "evaluate with a list of metrics": ("evaluate", ("RUN",), broken("metrics.json", b"[1]"), "metrics.json"),
    "evaluate with deep metrics": ("evaluate", ("RUN",), broken("metrics.json", b"[" * 10**5), "metrics.json"),
    "evaluate another checkpoint": ("evaluate", ("RUN", "--checkpoint", "first"), nothing, "first"),
    "evaluate with another key": ("evaluate", ("RUN", "model.hidden=[3]"), nothing, "only values of data"),
    "evaluate with an unknown key": ("evaluate", ("RUN", "data.rot=x"), nothing, "data.rot"),
    "evaluate with a bad value": ("evaluate", ("RUN", "data.batch_size=0"), nothing, "batch_size=0"),
    "evaluate on other data": ("evaluate", ("RUN", f"data._target_={OTHER_DATA}"), nothing, "last.ckpt"),
    "evaluate on what is no data": ("evaluate", ("RUN", "data._target_=os.system"), nothing, "os.system"),
    "evaluate with an unknown flag": ("evaluate", ("RUN", "--foo"), nothing, "--foo"),
    "predict without input": ("predict", ("RUN", "--output", "y.csv"), nothing, "--input"),
    "predict without output": ("predict", ("RUN", "--input", "x.csv"), nothing, "--output"),
    "predict a missing file": ("predict", ("RUN", "--input", "no.csv", "--output", "y.csv"), nothing, "no.csv"),
    "predict a directory": ("predict", ("RUN", "--input", "RUN", "--output", "y.csv"), nothing, "no such file"),
    "predict one bad file of two": ("predict", ("RUN", "--input", "x.csv", "bad.csv", *CSV[2:]), nothing, "bad.csv"),
    "predict into another format": (
        "predict",
        ("RUN", "--input", "x.csv", "--output", "y.txt"),
        nothing,
        ".csv or .npz",
    ),
    "predict into no folder": ("predict", ("RUN", *CSV[:3], "no/y.csv"), nothing, "no/y.csv"),
    "predict into a file": ("predict", ("RUN", *CSV[:3], "x.csv/y.csv"), nothing, "x.csv/y.csv"),
    "predict over the input": (
        "predict",
        ("RUN", "--input", "x.csv", "--output", "x.csv"),
        nothing,
        "replace the input",
    ),
    "predict without weights": ("predict", ("RUN", *CSV), without_checkpoints, "no checkpoints"),
    "export without format": ("export", ("RUN",), nothing, "--format"),
    "export another format": ("export", ("RUN", "--format", "keras"), nothing, "keras"),
    "export under another name": ("export", ("RUN", "--format", "onnx", "--output", "m.pt"), nothing, ".onnx"),
    "export under a file": ("export", ("RUN", "--format", "torchscript", "--output", "x.csv/m.pt"), nothing, "x.csv"),
    "export with broken metrics": (
        *("export", ("RUN", "--format", "torchscript")),
        *(broken("metrics.json", b'{"fit": 3}'), "metrics.json"),
    ),
    "compare a missing directory": ("compare", ("nowhere",), nothing, "nowhere"),
    "compare a file": ("compare", ("x.csv",), nothing, "x.csv"),
    "compare no runs": ("compare", ("RUN/checkpoints",), nothing, "no runs"),
    "compare by another metric": ("compare", ("RUN", "--metric", "foo"), nothing, "foo"),
    "compare with broken metrics": ("compare", ("RUN",), broken("metrics.json", b"\xff"), "metrics.json"),
    "compare with odd metrics": ("compare", ("RUN",), broken("metrics.json", b'{"name": 3}'), "metrics.json"),
    "compare with broken overrides": ("compare", ("RUN",), broken("overrides.yaml", b"a: ["), "overrides.yaml"),
    "compare with odd overrides": ("compare", ("RUN",), broken("overrides.yaml", b"a: 1"), "overrides.yaml"),
    "resume with broken overrides": ("train", ("resume=RUN",), broken("overrides.yaml", b"- [1]"), "overrides.yaml"),
    "resume with broken metrics": ("train", ("resume=RUN",), broken("metrics.json", b"{}}"), "metrics.json"),
    "resume with broken provenance": (
        *("train", ("resume=RUN", "trainer.max_epochs=9")),
        *(broken("provenance.json", b"[{}]"), "provenance.json"),
    ),
    "resume without config": ("train", ("resume=RUN",), broken("config.yaml", None), "no config.yaml"),
    "resume a truncated config": ("train", ("resume=RUN",), broken("config.yaml", b"data: {}"), "config.yaml"),
    "resume with other values": ("train", ("resume=RUN", "optimizer.lr=1"), nothing, "optimizer.lr"),
    "start from an odd config": ("train", ("from=RUN",), broken("config.yaml", b"\0"), "config.yaml"),
    "start from a choice": ("train", ("from=RUN", "optimizer=adam"), nothing, "not choices"),
    "start from weights that are none": (
        *("train", ("init_from=RUN", "data=iris", "callbacks=no_validation", "monitor=train_loss")),
        *(broken("checkpoints/last.ckpt", b"PK"), "last.ckpt"),
    ),
    "start from weights that do not fit": (
        "train",
        ("init_from=RUN", "model.hidden=[]"),
        nothing,
        "no weight matches",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_run_directory(cli: Callable[..., Result], made: Path, tmp_path: Path, name: str) -> None:
    script, args, change, expected = COMMANDS[name]
    run_dir = Path(shutil.copytree(made, tmp_path / "run"))
    change(run_dir)
    (tmp_path / "x.csv").write_text("1,2,3,4\n")
    (tmp_path / "bad.csv").write_text("1,2,3\n")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = cli(*(arg.replace("RUN", str(run_dir)) for arg in args), script=script)
    assert result.status == 2, result.out + result.err
    assert 1 <= len(result.err.splitlines()) <= 3, result.err
    assert "Traceback" not in result.err
    assert expected in result.err
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


# Configuration files of the user's own, read with --config-dir.
CONFIG_FILES = {
    "experiment/bad.yaml": (b"optimizer: {lr: [}", "experiment/bad"),
    "experiment/tab.yaml": (b"optimizer:\n\tlr: 1", "experiment/tab"),
    "experiment/binary.yaml": (bytes(range(128, 256)), "not UTF-8"),
    "experiment/list.yaml": (b"- 1\n", "experiment"),
    "experiment/text.yaml": (b"hello", "@package _global_"),
    "experiment/choice.yaml": (b"# @package _global_\ndefaults:\n  - override /optimizer: sgdm\n", "sgdm"),
    "experiment/group.yaml": (b"# @package _global_\ndefaults:\n  - override /optimiser: sgd\n", "optimiser"),
    "experiment/value.yaml": (b"# @package _global_\noptimizer: {lr: -1}\n", "optimizer.lr=-1"),
    "experiment/kind.yaml": (b"# @package _global_\noptimizer: {lr: high}\n", "optimizer"),
    "experiment/key.yaml": (b"# @package _global_\noptimizer: {foo: 1}\n", "foo"),
    "experiment/section.yaml": (b"# @package _global_\noptimizer: 3\n", "optimizer"),
    "experiment/reference.yaml": (b"# @package _global_\noptimizer: {lr: '${foo}'}\n", "foo"),
    "experiment/loop.yaml": (b"# @package _global_\nseed: '${seed}'\n", "seed"),
    "experiment/time.yaml": (b"# @package _global_\ntrainer: {max_time: 5}\n", "trainer"),
    "model/name.yaml": (f"_target_: {MODEL}x\n".encode(), f"{MODEL}x"),
    "model/module.yaml": (f"_target_: {PACKAGE}.nothing.Net\n".encode(), f"{PACKAGE}.nothing"),
    "model/none.yaml": (b"hidden: [3]\n", "model"),
    "model/number.yaml": (b"_target_: 3\n", "model"),
    "model/function.yaml": (b"_target_: math.sqrt\n", "model"),
    "model/other.yaml": (b"_target_: torch.optim.SGD\nlr: 1\n", "model"),
    "data/other.yaml": (b"_target_: torch.nn.ReLU\n", "data"),
    "task/other.yaml": (b"_target_: torch.nn.ReLU\n", "task"),
    "optimizer/module.yaml": (b"_target_: torch.nn.ReLU\n", "optimizer"),
    "scheduler/module.yaml": (b"_target_: torch.nn.ReLU\n", "scheduler"),
    "callbacks/module.yaml": (b"mine: {_target_: torch.nn.ReLU}\n", "ReLU"),
    "logger/module.yaml": (b"mine: {_target_: torch.nn.ReLU}\n", "logger.mine"),
}
ALL_THE_WAY = ("experiment/bad.yaml", "experiment/binary.yaml", "experiment/reference.yaml", "experiment/loop.yaml")


def with_file(folder: Path, name: str) -> list[str]:
    """Writes it, and chooses it."""
    file = folder / "conf" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(CONFIG_FILES[name][0])
    return [f"hydra.searchpath=['file://{folder / 'conf'}']", f"{file.parent.name}={file.stem}"]


@pytest.mark.parametrize("name", [name for name in CONFIG_FILES if name not in ALL_THE_WAY])
def test_a_configuration_file_is_refused(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    assert CONFIG_FILES[name][1] in refused(*with_file(tmp_path, name))


@pytest.mark.parametrize("name", ALL_THE_WAY)
def test_a_configuration_file(cli: Callable[..., Result], tmp_path: Path, name: str) -> None:
    expected, args = CONFIG_FILES[name][1], with_file(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    result = cli(*args)
    assert result.status == 2, result.out + result.err
    assert 1 <= len(result.err.splitlines()) <= 3, result.err
    assert "Traceback" not in result.err
    assert expected in result.err
    assert sorted(tmp_path.rglob("*")) == before


ENVIRONMENT = {
    "DATA_ROOT=nowhere": ("data=mnist", "nowhere"),
    "DATA_ROOT=file": ("data=mnist", "file"),
    "DATA_ROOT=": ("data=mnist", "root"),
    "DATA_ROOT=~nobody/data": ("data=mnist", "data.root=~nobody/data"),
    f"DATA_ROOT={300 * 'x'}": ("data=mnist", "xxx"),
}


@pytest.mark.parametrize("variables", ENVIRONMENT)
def test_the_environment(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: str
) -> None:
    from torchvision import datasets

    args, expected = ENVIRONMENT[variables]
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [])  # so that nothing is asked of the network
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    result = cli(*args.split())
    assert result.status == 2, result.out + result.err
    assert 1 <= len(result.err.splitlines()) <= 3, result.err
    assert expected in result.err
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/last.ckpt", "metrics.json", "x.csv"])
def test_a_file_that_may_not_be_read(cli: Callable[..., Result], made: Path, tmp_path: Path, name: str) -> None:
    run_dir = Path(shutil.copytree(made, tmp_path / "run"))
    for each in ("metrics.json", "x.csv"):
        (run_dir / each).write_text("{}")
    (run_dir / name).chmod(0)
    result = cli(run_dir, "--input", run_dir / "x.csv", "--output", "y.csv", script="predict")
    assert result.status == 2
    assert f"{run_dir / name}: Permission denied" in result.err


@pytest.mark.parametrize("is_sealed_again", [False, True])
def test_fuzzed_checkpoints_are_read_or_refused(made: Path, tmp_path: Path, is_sealed_again: bool) -> None:
    content = (made / "checkpoints" / "last.ckpt").read_bytes()
    archive = content[: -DIGEST - 2] + b"\0\0"
    path = tmp_path / "last.ckpt"
    for mutant in mutations(archive[:-END_OF_ZIP] if is_sealed_again else content, 250):
        sealed = seal(mutant + archive[-END_OF_ZIP:]) if is_sealed_again else mutant
        said = refusal(checkpoint.read_weights, path, sealed, InputError)
        assert said.startswith(f"{path}: ") or (is_sealed_again and not said)


def test_fuzzed_configurations_are_read_or_refused(made: Path, tmp_path: Path) -> None:
    def read(path: Path) -> None:
        check_objects(path.parent, read_config(path.parent, CONF, to_train=True), CONF, to_train=True)

    path = tmp_path / "config.yaml"
    for mutant in mutations((made / "config.yaml").read_bytes(), 250):
        assert len(refusal(read, path, mutant, InputError).splitlines()) <= 2


@pytest.mark.parametrize("script", ["train", "evaluate"])
@pytest.mark.parametrize("value", [0, 3, 1000])  # 0 and 1000 are values of data's keys, which are not to blame
def test_samples_that_load_should_not_have_returned(
    cli: Callable[..., Result], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, value: int
) -> None:
    iris = class_of("data", "iris")
    load_all = iris.load_all

    def load_badly(self: Any) -> Any:
        samples = load_all(self)
        samples.y[2] = value or -1
        return samples

    monkeypatch.setattr(iris, "load_all", load_badly)
    run_dir = Path(shutil.copytree(made, tmp_path / "run"))
    args = ["data=iris", "callbacks=no_validation", "monitor=train_loss"] if script == "train" else [run_dir]
    before = sorted(tmp_path.rglob("*"))
    result = cli(*args, script=script)
    label = f"the label of sample 2 (from 0) is {value or -1}, must be from 0 to 2 (num_outputs=3)"
    assert (result.status, result.out) == (2, "")
    assert result.err == f"data: Iris, load_all(): {label}\n"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "content", "shape"),
    [
        ("x.csv", b"a,b,c,d\n" + b"1.5,2,-3e-2,4\n" * 5, (4,)),
        ("x.npy", npy(IRISES), (4,)),
        ("x.npz", npz(x=IRISES), (4,)),
        ("x.png", image(), (1, 8, 8)),
        ("x.jpg", image(kind="JPEG"), (1, 8, 8)),
        ("x.gif", image(kind="GIF"), (1, 8, 8)),
        ("x.tif", image(kind="TIFF"), (1, 8, 8)),
        ("x.webp", image(kind="WEBP", mode="RGB"), (1, 8, 8)),
    ],
)
@pytest.mark.filterwarnings("ignore")  # what Pillow says of odd TIFF tags
def test_fuzzed_samples_are_read_or_refused(tmp_path: Path, name: str, content: bytes, shape: tuple[int, ...]) -> None:
    path = tmp_path / name
    for mutant in mutations(content, 150):
        said = refusal(lambda path: read_samples(path, shape, 1.0), path, mutant, InputError)
        assert not said or said.startswith(f"{path}: ")
