"""Data sets: what is loaded is right, and what is missing or damaged is refused with advice."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from course_utils import data, data_files
from tests.course_utils.tiny import cut_short, move_course_to, needs_cifar10, tiny_dataset


@pytest.fixture(scope="module")
def fashion() -> data.Dataset:
    return data.load_fashion_mnist()


def test_fashion_mnist_has_the_published_shapes_and_balanced_classes(fashion):
    assert fashion.train_images.shape == (60_000, 1, 28, 28)
    assert fashion.test_images.shape == (10_000, 1, 28, 28)
    assert fashion.train_images.dtype == torch.uint8
    assert fashion.train_labels.dtype == torch.int64
    assert torch.bincount(fashion.train_labels).tolist() == [6_000] * 10
    assert torch.bincount(fashion.test_labels).tolist() == [1_000] * 10
    assert (fashion.n_channels, fashion.n_classes) == (1, 10)


def test_mean_and_std_are_those_of_the_training_images(fashion):
    pixels = fashion.train_images.double() / 255
    assert fashion.mean[0] == pytest.approx(pixels.mean().item(), abs=5e-6)  # five digits are stored
    assert fashion.std[0] == pytest.approx(pixels.std(correction=0).item(), abs=5e-6)


def test_labels_belong_to_their_images(fashion):
    """Mean images of trousers and bags, classified by the nearest class mean, are found again on the test images."""
    x, y = fashion.train_images[:20_000].flatten(1).float(), fashion.train_labels[:20_000]
    means = torch.stack([x[y == label].mean(0) for label in range(10)])
    nearest = torch.cdist(fashion.test_images.flatten(1).float(), means).argmin(1)
    accuracy = (nearest == fashion.test_labels).double().mean()
    assert accuracy > 0.6  # nearest class mean reaches 0.68; mismatched labels would give 0.1


def test_subset_keeps_the_first_images_and_the_statistics(fashion):
    small = data.load("fashion_mnist", n_train=100, n_test=7)
    assert torch.equal(small.train_images, fashion.train_images[:100])
    assert torch.equal(small.test_labels, fashion.test_labels[:7])
    assert (small.mean, small.std) == (fashion.mean, fashion.std)


@pytest.mark.parametrize("n_train", [0, -1, 193])
def test_subset_refuses_a_count_out_of_range(n_train):
    with pytest.raises(ValueError, match=r"n_train must be from 1 to 192"):
        tiny_dataset().subset(n_train=n_train)


def test_subset_refuses_a_fraction():
    with pytest.raises(TypeError, match="n_test must be an integer"):
        tiny_dataset().subset(n_test=0.5)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'mnist'"):
        data.load("mnist")
    with pytest.raises(ValueError, match="'validation'"):
        tiny_dataset().split("validation")


@pytest.fixture
def copied_files(tmp_path, monkeypatch):
    """A private copy of the embedded files that a test may damage."""
    copy = shutil.copytree(data_files.fashion_mnist_folder(), tmp_path / "data" / "fashion_mnist")
    move_course_to(tmp_path, monkeypatch)
    monkeypatch.delenv("COURSE_DATA", raising=False)
    return copy


def test_a_missing_file_is_named_with_its_repair(copied_files):
    (copied_files / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.MissingData, match=r"t10k-labels-idx1-ubyte\.gz is missing.*git checkout"):
        data.load_fashion_mnist()


def test_a_truncated_file_is_named_with_its_repair(copied_files):
    cut_short(copied_files / "train-images-idx3-ubyte.gz", 1)
    with pytest.raises(data.DamagedData, match=r"train-images-idx3-ubyte\.gz .* is damaged.*git checkout"):
        data.load_fashion_mnist()


def test_one_altered_byte_is_noticed(copied_files):
    path = copied_files / "t10k-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DamagedData, match=r"t10k-images-idx3-ubyte\.gz"):
        data.load_fashion_mnist()


def test_verify_reports_each_file(copied_files):
    (copied_files / "t10k-labels-idx1-ubyte.gz").write_bytes(b"")
    outcome = {path.rsplit("/", 1)[-1]: text for path, text in data.verify().items()}
    assert outcome["train-images-idx3-ubyte.gz"] == "ok"
    assert "damaged" in outcome["t10k-labels-idx1-ubyte.gz"]
    assert "course data fetch cifar10" in outcome["cifar10.npz"]
    assert "course pretrain" in outcome["resnet20_fashion_mnist.safetensors"]


def test_cifar10_missing_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(data.MissingData, match="course data fetch cifar10"):
        data.load_cifar10()


def test_students_are_told_what_exists_in_their_folder(copied_files, tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "COURSE_FOLDER", tmp_path / "data")  # a folder that is no checkout
    (copied_files / "t10k-labels-idx1-ubyte.gz").unlink()
    outcome = {path.rsplit("/", 1)[-1]: text for path, text in data.verify().items()}
    assert "Copy data/fashion_mnist/t10k-labels-idx1-ubyte.gz again" in outcome["t10k-labels-idx1-ubyte.gz"]
    assert "Copy data/checkpoints again" in outcome["resnet20_fashion_mnist.safetensors"]
    assert "import fetch_cifar10" in outcome["cifar10.npz"]
    assert not any(command in text for text in outcome.values() for command in ("git checkout", "course data", "course pre"))


def test_a_download_that_is_something_else_is_named_with_what_to_do(tmp_path, monkeypatch):
    from torchvision import datasets

    def corrupted(root, train, download):
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "CIFAR10", corrupted)
    with pytest.raises(data.DamagedData, match=r"download is not CIFAR-10.*Delete that folder, then: course data fetch"):
        data_files.fetch_cifar10()
    assert not data_files.cifar10_path().exists()


def test_a_failed_download_says_whence_whereto_and_what_to_do(tmp_path, monkeypatch):
    """A server that refuses the connection, as on a machine without network."""
    from torchvision import datasets

    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(OSError, match=r"from http://127.0.0.1:9/.*refused.*then: course data fetch cifar10; or copy") as info:
        data_files.fetch_cifar10()
    assert str(tmp_path) in str(info.value)
    assert not data_files.cifar10_path().exists()


def test_a_cut_short_cifar10_file_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    np.savez(tmp_path / "cifar10.npz", train_images=np.zeros((10, 32, 32, 3), np.uint8), train_labels=np.zeros(10))
    with pytest.raises(data.DamagedData, match=r"shape \(10, 32, 32, 3\).*course data fetch cifar10"):
        data.load_cifar10()
    images = np.zeros((50_000, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar10.npz", train_images=images, train_labels=np.zeros(10))
    with pytest.raises(data.DamagedData, match=r"train labels have shape \(10,\), not \(50000,\)"):
        data.load_cifar10()
    cut_short(tmp_path / "cifar10.npz", 50)
    with pytest.raises(data.DamagedData, match="cannot be read"):
        data.load_cifar10()


def test_fingerprint_ignores_order_and_notices_any_change():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8), rng.integers(0, 10, 20)
    original = data_files.fingerprint(data_files.pair_digests(images, labels))
    order = rng.permutation(20)
    assert data_files.fingerprint(data_files.pair_digests(images[order], labels[order])) == original
    assert data_files.fingerprint(data_files.pair_digests(images, labels[order])) != original
    images[3, 0, 0, 0] ^= 1
    assert data_files.fingerprint(data_files.pair_digests(images, labels)) != original


def small_cifar(monkeypatch, download):
    """Let CIFAR-10 be 6 + 4 images, and count the downloads."""
    calls = []

    def counted(folder):
        calls.append(folder)
        return download()

    monkeypatch.setattr(data_files, "CIFAR10_COUNTS", {"train": 6, "test": 4})
    monkeypatch.setattr(data_files, "_download_cifar10", counted)
    return calls


def small_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "train_images": rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8),
        "train_labels": np.arange(6, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "test_labels": np.arange(4, dtype=np.uint8),
    }


def test_fetch_converts_once_replaces_a_damaged_file_and_leaves_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    calls = small_cifar(monkeypatch, small_arrays)
    arrays = small_arrays()
    prints = {
        split: data_files.fingerprint(data_files.pair_digests(arrays[f"{split}_images"], arrays[f"{split}_labels"]))
        for split in ("train", "test")
    }
    monkeypatch.setattr(data_files, "CIFAR10_FINGERPRINT", prints)
    path = data.fetch_cifar10()
    assert path == tmp_path / "cifar10.npz"
    assert data.fetch_cifar10() == path
    assert len(calls) == 1
    cut_short(path, 100)
    data.fetch_cifar10()
    assert len(calls) == 2
    assert data.load_cifar10().train_images.shape == (6, 3, 32, 32)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cifar10.npz"]


def test_fetch_refuses_a_wrong_download_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    small_cifar(monkeypatch, small_arrays)
    with pytest.raises(data.DamagedData):
        data.fetch_cifar10()
    assert list(tmp_path.iterdir()) == []


def test_cifar10_order_does_not_depend_on_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    small_cifar(monkeypatch, small_arrays)
    arrays = small_arrays()
    for split in ("train", "test"):
        print_ = data_files.fingerprint(data_files.pair_digests(arrays[f"{split}_images"], arrays[f"{split}_labels"]))
        monkeypatch.setitem(data_files.CIFAR10_FINGERPRINT, split, print_)
    np.savez(tmp_path / "cifar10.npz", **arrays)
    first = data.load_cifar10()
    np.savez(tmp_path / "cifar10.npz", **{name: array[::-1] for name, array in arrays.items()})
    second = data.load_cifar10()
    assert torch.equal(first.train_images, second.train_images)
    assert torch.equal(first.train_labels, second.train_labels)
    kept = {bytes(image.permute(1, 2, 0).numpy().tobytes()) for image in first.train_images}
    assert kept == {image.tobytes() for image in arrays["train_images"]}


@needs_cifar10
def test_cifar10_is_the_published_one():
    dataset = data.load_cifar10()
    assert dataset.train_images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(dataset.train_labels).tolist() == [5_000] * 10
    assert torch.bincount(dataset.test_labels).tolist() == [1_000] * 10
    pixels = dataset.train_images.transpose(0, 1).flatten(1)
    mean = torch.stack([channel.double().mean() for channel in pixels]) / 255
    std = torch.stack([channel.double().std(correction=0) for channel in pixels]) / 255
    assert mean.tolist() == pytest.approx(dataset.mean, abs=5e-6)
    assert std.tolist() == pytest.approx(dataset.std, abs=6e-6)
    counts = torch.bincount(dataset.train_labels[:5_000], minlength=10)
    assert counts.min() > 400  # the first 5000 images are well mixed: 500 a class, standard deviation 20
