"""Where data files live, and how we know that they are the right ones.

A result is only as good as the bytes it was computed from. Every data file that a lab reads is therefore checked
before use, and a file that is missing, cut short or altered raises an error that names the file and the command
that repairs it. Nothing is ever replaced silently.

There are two kinds of files:

* **Embedded** files lie in the repository's `data/` folder (Fashion-MNIST, two texts, checkpoints). Their sha256 is
  written down here.
* **Fetched** files (CIFAR-10) lie in a cache folder: the folder that the environment variable `COURSE_DATA` names, or
  else `data/cache/`. CIFAR-10 is kept as one `.npz` of uint8 arrays. A zip archive of the same arrays can differ in its
  bytes (time stamps, order of the images), so we check a *fingerprint* of the content: the sum, modulo 2^256, of the
  sha256 of every (image, label) pair. It does not depend on the order of the pairs.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from course_utils.files import replacing

COURSE_FOLDER = Path(__file__).resolve().parents[1]
DATA_FOLDER = COURSE_FOLDER / "data"

FASHION_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
TEXTS_SHA256 = {
    "austen.txt": "74e28a1c99b229d5d587d9e627753bf30d25d139a6f1c129aac93b72469c9b7e",
    "bierce.txt": "484dfb98227ee7a0cd82c9a578b9976bec9ce9f8a540a3b8d2d82e7518074bde",
}
CIFAR10_COUNTS = {"train": 50_000, "test": 10_000}
CIFAR10_FINGERPRINT = {
    "train": "55c8a3bce23874fd5871719a30be30ce1b1f86e2f74afbc9cc19d1252b74adde",
    "test": "7d79e752791e1a3f8555c99847bcbd1210edb70997e4519cd59bb1741e4f6ee7",
}


class MissingData(FileNotFoundError):
    """A data file is not there; the message names it and the command that brings it."""


class DamagedData(ValueError):
    """A data file is there but its content is not what it should be; the message names the command that repairs it."""


def cache_folder() -> Path:
    """Return the folder of fetched data: `$COURSE_DATA` when it is set, else `data/cache` in the repository."""
    chosen = os.environ.get("COURSE_DATA", "").strip()
    return Path(chosen).expanduser() if chosen else DATA_FOLDER / "cache"


def fashion_mnist_folder() -> Path:
    """Return the folder that holds the four embedded Fashion-MNIST files."""
    return DATA_FOLDER / "fashion_mnist"


def texts_folder() -> Path:
    """Return the folder that holds the two embedded texts."""
    return DATA_FOLDER / "texts"


def cifar10_path() -> Path:
    """Return the path at which CIFAR-10 is cached, whether or not it is there."""
    return cache_folder() / "cifar10.npz"


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def how_to_restore(name: str, command: str = "") -> str:
    """Say how a file that comes with the course is brought back, with commands that exist where this code runs.

    Args:
        name: The file or folder below the course's folder, for example "data/texts/austen.txt".
        command: The command of the course's repository that makes it anew; "" where there is none.

    Returns:
        A sentence or two for a message. In a git checkout it names git; in a folder that students were given, that one.
    """
    if (COURSE_FOLDER / ".git").exists():
        restore = f"Restore it with: git checkout -- {name}"
    else:
        restore = f"Copy {name} again from the folder or archive that you were given"
    return f"{restore}   or make it anew with: {command}" if command and _has_commands() else restore


def how_to_fetch() -> str:
    """Return the command that brings CIFAR-10, as it exists where this code runs."""
    if _has_commands():
        return "course data fetch cifar10"
    return 'python -c "from course_utils.data import fetch_cifar10; fetch_cifar10()"'


def _has_commands() -> bool:
    """Say whether this is the course's repository, with its `course` command, and not a folder for students."""
    return (COURSE_FOLDER / "course_admin").is_dir()


def check_embedded(path: Path, sha256: str) -> None:
    """Check that an embedded file is there and has the bytes it should have.

    Args:
        path: The file.
        sha256: The sha256 it should have, 64 hexadecimal digits.

    Raises:
        MissingData: If the file is not there.
        DamagedData: If its sha256 is another one.
    """
    repair = how_to_restore(f"data/{path.parent.name}/{path.name}")
    if not path.is_file():
        raise MissingData(f"{path} is missing; it is part of the course. {repair}")
    found = file_sha256(path)
    if found != sha256:
        raise DamagedData(
            f"{path} ({path.stat().st_size} bytes) is damaged: its sha256 is {found}, it should be {sha256}. {repair}"
        )


def pair_digests(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the sha256 of every (image, label) pair.

    Args:
        images: Shape (N, ...), uint8, any layout in which one image's bytes are contiguous.
        labels: Shape (N,), integers from 0 to 255.

    Returns:
        Shape (N,), dtype `S32`: 32 raw bytes a pair.
    """
    rows = np.ascontiguousarray(images).reshape(len(images), -1)
    ends = np.asarray(labels).astype(np.uint8)
    digests = [hashlib.sha256(row.tobytes() + bytes([end])).digest() for row, end in zip(rows, ends, strict=True)]
    return np.array(digests, dtype="S32")


def fingerprint(digests: np.ndarray) -> str:
    """Return sum(digests) modulo 2^256 in hexadecimal: a fingerprint that ignores the order of the pairs."""
    total = sum(int.from_bytes(digest.ljust(32, b"\0"), "big") for digest in digests.tolist())
    return f"{total % 2**256:064x}"


def read_cifar10(path: Path | None = None) -> dict[str, np.ndarray]:
    """Read CIFAR-10 from its `.npz` file, check it, and put it in a fixed order.

    The images are sorted by the sha256 of the (image, label) pair: an arbitrary but fixed order, so that "the first
    1000 images" are the same, well mixed over the classes, on every machine.

    Args:
        path: The file; by default the one in the cache folder.

    Returns:
        `train_images` (50000, 32, 32, 3) and `test_images` (10000, 32, 32, 3) as uint8, `train_labels` and
        `test_labels` as uint8.

    Raises:
        MissingData: If the file is not there.
        DamagedData: If it cannot be read or its content is not CIFAR-10.
    """
    path = cifar10_path() if path is None else Path(path)
    if not path.is_file():
        raise MissingData(
            f"CIFAR-10 is not at {path}. Get it with: {how_to_fetch()}   (the environment variable "
            "COURSE_DATA names the folder to look in)"
        )
    arrays = {}
    for split in ("train", "test"):
        images, labels = _read_split(path, split)
        digests = pair_digests(images, labels)
        if fingerprint(digests) != CIFAR10_FINGERPRINT[split]:
            raise DamagedData(_damaged(path, f"the {split} images are not those of CIFAR-10"))
        order = np.argsort(digests, kind="stable")
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[order], labels[order]
    return arrays


def _read_split(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split's arrays and check shape and dtype."""
    count = CIFAR10_COUNTS[split]
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive[f"{split}_images"], archive[f"{split}_labels"]
    except Exception as error:  # a cut-short zip shows itself in many ways
        raise DamagedData(_damaged(path, f"it cannot be read ({type(error).__name__}: {error})")) from error
    if images.shape != (count, 32, 32, 3) or images.dtype != np.uint8:
        raise DamagedData(_damaged(path, f"its {split} images have shape {images.shape} and dtype {images.dtype}"))
    if labels.shape != (count,):
        raise DamagedData(_damaged(path, f"its {split} labels have shape {labels.shape}, not ({count},)"))
    return images, labels.astype(np.uint8)


def _damaged(path: Path, what: str) -> str:
    return f"{path} is damaged: {what}. Repair it with: {how_to_fetch()}"


def fetch_cifar10() -> Path:
    """Download CIFAR-10 with torchvision, convert it once to `cifar10.npz` in the cache folder, and check it.

    The file appears under its name only when it is complete (it is written beside it and renamed). A file that is
    there already and is right is kept; a damaged one is replaced.

    Returns:
        The path of the checked file.

    Raises:
        DamagedData: If what was downloaded is not CIFAR-10; the message names its folder, which is to be deleted.
        OSError: If the download fails (no network, no space).
    """
    path = cifar10_path()
    try:
        read_cifar10(path)
        return path
    except (MissingData, DamagedData):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        with open(part, "wb") as stream:  # savez would add .npz to a name
            np.savez(stream, **_download_cifar10(path.parent / "download"))
        read_cifar10(part)
    return path


def _download_cifar10(folder: Path) -> dict[str, np.ndarray]:
    """Download through torchvision (which shows a progress bar and checks its own md5) and return the four arrays."""
    from torchvision.datasets import CIFAR10

    arrays = {}
    for split in ("train", "test"):
        try:
            source = CIFAR10(root=folder, train=split == "train", download=True)
        except RuntimeError as error:  # torchvision's word for a wrong md5: a page of a log-in, a cut-off file
            raise DamagedData(
                f"what was downloaded to {folder} is not CIFAR-10 ({error}). Delete that folder, then: {how_to_fetch()}"
            ) from error
        except OSError as error:  # no connection, no space
            raise OSError(
                f"CIFAR-10 could not be downloaded from {CIFAR10.url} to {folder} ({error}). Look at the connection "
                f"and the free space, then: {how_to_fetch()}; or copy {cifar10_path().name} from a machine that has it "
                f"to {cifar10_path().parent}"
            ) from error
        arrays[f"{split}_images"] = np.asarray(source.data, dtype=np.uint8)
        arrays[f"{split}_labels"] = np.asarray(source.targets, dtype=np.uint8)
    return arrays
