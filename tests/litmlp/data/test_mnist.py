import gzip
import hashlib
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from conftest import write_idx
from mutations import mutations, refusal
from torchvision import datasets

from litmlp.data.mnist import FILES, MNIST, FashionMNIST, read_idx

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES


def idx(values, magic=b"\0\0\x08"):
    return magic + bytes([values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape) + values.tobytes()


def parts():
    """What the four files hold, by name: 20 training and 10 test images."""
    rng = np.random.default_rng(0)
    train_x, test_x = (rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (20, 10))
    return {
        IMAGES: train_x,
        LABELS: np.arange(20, dtype=np.uint8) % 10,
        TEST_IMAGES: test_x,
        TEST_LABELS: np.arange(10, dtype=np.uint8),
    }


def write(folder, values, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in values.items():
        content = idx(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content, 1) if zipped else content)


def make(root, cls=MNIST, **options):
    return cls(root=str(root), batch_size=4, val_size=0, **options)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """torchvision's download fails as it does without a network, after it has made its folder."""
    monkeypatch.setattr(FashionMNIST, "system_folder", None)
    for cls in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(
            cls, "download", fail_with(RuntimeError("Error downloading train-images:\nmirror 1\nmirror 2"))
        )


REAL_DOWNLOAD = datasets.MNIST.download  # which the fixture above replaces


@pytest.fixture
def mirror(monkeypatch):
    """Lets torchvision download from a dict: name of the archive -> its content."""
    from torchvision.datasets import utils

    files = {f"{name}.gz": hostile_gzip(idx(array)) for name, array in parts().items()}
    hashes = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(datasets.MNIST, "download", REAL_DOWNLOAD)
    monkeypatch.setattr(datasets.MNIST, "resources", list(hashes.items()))
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["mirror/"])
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(utils, "_urlretrieve", lambda url, path: Path(path).write_bytes(files[Path(url).name]))
    return files


def hostile_gzip(content):
    """An archive that says its file is called ../../../mine."""
    plain = gzip.compress(content, 1)
    return plain[:3] + b"\x08" + plain[4:10] + b"../../../mine\0" + plain[10:]


def test_what_is_downloaded_stays_in_its_folder_whatever_the_archive_calls_it(tmp_path, mirror):
    root = tmp_path / "a" / "root"
    data = make(root)
    data.prepare_data()
    data.setup()
    assert data.test.y.tolist() == list(range(10))
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {root / "MNIST" / "raw"}


@pytest.mark.parametrize("name", [IMAGES, TEST_LABELS])
def test_a_download_that_fails_its_hash_is_neither_used_nor_kept(tmp_path, mirror, name):
    raw = tmp_path / "MNIST" / "raw"
    write(raw, {LABELS: parts()[LABELS]})
    mirror[f"{name}.gz"] = gzip.compress(idx(parts()[name] ^ 1))
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match=f"Error downloading {name}"):
            make(tmp_path).prepare_data()
    assert [path.name for path in raw.iterdir()] == [LABELS]


def fail_with(error):
    def download(dataset):
        Path(dataset.raw_folder).mkdir(parents=True, exist_ok=True)
        raise error

    return download


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("layout", [".", "MNIST/raw"])
def test_files_are_read_from_either_layout_plain_or_zipped(tmp_path, layout, zipped):
    values = parts()
    write(tmp_path / layout, values, zipped)
    data = make(tmp_path)
    data.prepare_data()
    data.setup()
    assert np.array_equal(data.train.x[:, 0], values[IMAGES])
    assert np.array_equal(data.train.y, values[LABELS])
    assert np.array_equal(data.test.x[:, 0], values[TEST_IMAGES])
    assert np.array_equal(data.test.y, values[TEST_LABELS])
    assert data.train.x.dtype == torch.uint8
    assert data.train.y.dtype == torch.int64
    assert data.train.x.shape[1:] == data.sample_shape
    torch.testing.assert_close(data.transform(data.test.x), data.test.x / 255)


def test_plain_and_zipped_files_may_be_mixed(tmp_path):
    values = parts()
    write(tmp_path, {name: values[name] for name in FILES[:2]})
    write(tmp_path, {name: values[name] for name in FILES[2:]}, zipped=True)
    data = make(tmp_path)
    data.prepare_data()
    data.setup()
    assert len(data.test.y) == 10


def test_a_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "sets", parts())
    make("~/sets").setup()


def test_fashion_mnist_is_found_in_the_system_folder(tmp_path, monkeypatch):
    write(tmp_path / "system", parts(), zipped=True)
    monkeypatch.setattr(FashionMNIST, "system_folder", str(tmp_path / "system"))
    data = make(tmp_path / "absent", FashionMNIST)
    data.prepare_data()
    data.setup()
    assert len(data.train.y) == 20
    assert not (tmp_path / "absent").exists()


def test_root_comes_before_the_system_folder(tmp_path, monkeypatch):
    write(tmp_path / "system", {name: values[:5] for name, values in parts().items()})
    write(tmp_path / "FashionMNIST" / "raw", parts())
    monkeypatch.setattr(FashionMNIST, "system_folder", str(tmp_path / "system"))
    data = make(tmp_path, FashionMNIST)
    data.setup()
    assert len(data.train.y) == 20


def test_a_folder_that_says_whose_files_it_holds_comes_before_root(tmp_path):
    write(tmp_path, {name: values[:5] for name, values in parts().items()})
    write(tmp_path / "FashionMNIST" / "raw", parts())
    assert FashionMNIST(tmp_path)._find() == tmp_path / "FashionMNIST" / "raw"


def test_mnist_does_not_take_the_system_folder_of_fashion_mnist(tmp_path, monkeypatch):
    write(tmp_path / "system", parts())
    monkeypatch.setattr(FashionMNIST, "system_folder", str(tmp_path / "system"))
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "absent").prepare_data()


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST])
@pytest.mark.parametrize(
    "error", [RuntimeError("Error downloading x:\nmirror 1"), URLError("no route to host")], ids=repr
)
def test_files_not_to_be_had_are_told_in_two_lines_and_leave_nothing_behind(tmp_path, monkeypatch, cls, error):
    monkeypatch.setattr(getattr(datasets, cls.name), "download", fail_with(error))
    root = tmp_path / "data"
    with pytest.raises(FileNotFoundError) as caught:
        make(root, cls).prepare_data()
    message = str(caught.value)
    assert len(message.splitlines()) <= 2
    assert f"root={root}" in message
    assert str(root / cls.name / "raw") in message
    assert all(name in message for name in FILES)
    assert not root.exists()


def test_a_download_that_fails_keeps_the_folders_that_were_there(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "notes.txt").touch()
    with pytest.raises(FileNotFoundError):
        make(root).prepare_data()
    assert [path.name for path in root.iterdir()] == ["notes.txt"]


def test_a_download_that_fails_keeps_an_empty_root_that_was_there(tmp_path):
    root = tmp_path / "mine" / "data"
    root.mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        make(root).prepare_data()
    assert root.is_dir()


def test_a_download_that_fails_without_a_reason_is_told_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "download", fail_with(ConnectionResetError()))
    with pytest.raises(FileNotFoundError):
        make(tmp_path).prepare_data()


@pytest.mark.parametrize("absent", FILES)
def test_one_missing_file_is_as_bad_as_four(tmp_path, absent):
    write(tmp_path, {name: values for name, values in parts().items() if name != absent})
    with pytest.raises(FileNotFoundError):
        make(tmp_path).prepare_data()


def test_files_that_vanish_after_prepare_data_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"does not hold the files of MNIST"):
        make(tmp_path).setup()


def setup_error(root, changes):
    write(root, {**parts(), **changes})
    with pytest.raises(ValueError, match=str(root)) as caught:
        make(root).setup()
    return str(caught.value)


def test_counts_that_differ_are_refused(tmp_path):
    message = setup_error(tmp_path, {LABELS: np.zeros(19, np.uint8)})
    assert "train files hold (20, 28, 28) images and (19,) labels" in message


def test_images_of_another_size_are_refused(tmp_path):
    message = setup_error(tmp_path, {TEST_IMAGES: np.zeros((10, 32, 32), np.uint8)})
    assert "t10k files hold (10, 32, 32) images" in message


def test_labels_and_images_that_are_swapped_are_refused(tmp_path):
    values = parts()
    assert "train files hold" in setup_error(tmp_path, {IMAGES: values[LABELS], LABELS: values[IMAGES]})


def test_labels_out_of_range_are_refused(tmp_path):
    message = setup_error(tmp_path, {TEST_LABELS: np.full(10, 47, np.uint8)})
    assert "t10k labels go up to 47, there are 10 classes" in message


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_gives_back_what_was_written(tmp_path, shape, suffix):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(idx(values)) if suffix else idx(values))
    read = read_idx(path)
    assert np.array_equal(read, values)
    read += 1  # it is writable


WHOLE = idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
FLIPPED = bytearray(gzip.compress(WHOLE))
FLIPPED[10] ^= 0xFF  # the first byte after gzip's header


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut", WHOLE[:-1], "is truncated: 59 of 60 values"),
        ("cut_to_its_header", WHOLE[:16], "is truncated: 0 of 60 values"),
        ("cut_in_its_header", WHOLE[:9], "is not an IDX file"),
        ("empty", b"", "is not an IDX file"),
        ("floats", idx(np.zeros(3, np.uint8), magic=b"\0\0\x0d"), "is not an IDX file of unsigned bytes"),
        ("page", b"<!DOCTYPE html><html></html>", "is not an IDX file"),
        ("cut.gz", gzip.compress(WHOLE)[:-12], "cannot be read"),
        ("plain.gz", WHOLE, "cannot be read"),
        ("flipped.gz", bytes(FLIPPED), "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_not_what_its_name_says_is_refused_by_its_path(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fuzzed_idx_files_are_read_or_refused(tmp_path, suffix):
    path = tmp_path / f"x-idx3-ubyte{suffix}"
    write_idx(path, np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5))
    content = path.read_bytes()
    for mutant in mutations(gzip.compress(content, mtime=0) if suffix else content, 400):
        assert str(path) in (refusal(read_idx, path, mutant, ValueError) or str(path))


SYSTEM_FOLDER = Path(FashionMNIST.system_folder)


@pytest.mark.skipif(not SYSTEM_FOLDER.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(FashionMNIST, "system_folder", str(SYSTEM_FOLDER))
    data = FashionMNIST(root=str(tmp_path), val_size=0)
    data.prepare_data()
    data.setup()
    assert torch.bincount(data.train.y).tolist() == [6000] * 10
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    assert float(data.train.x.float().mean() / 255) == pytest.approx(0.2860, abs=5e-5)
