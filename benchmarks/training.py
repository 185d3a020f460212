"""Training throughput: our loop, the usual recipe, and the network alone, measured in one run.

    python benchmarks/training.py                  # CIFAR-10 if it is in the cache folder, else Fashion-MNIST
    python benchmarks/training.py --steps 100 --rounds 5
    python benchmarks/training.py --compile        # with torch.compile (needs a C++ compiler)

Every row trains ResNet-20 with batches of 128 and the same optimiser:

* **course loop**: `course_utils.training.fit` (uint8 images in memory, batched augmentation, channels-last input).
* **usual recipe, W workers**: what most tutorials write: a data set of PIL images, torchvision's RandomCrop,
  RandomHorizontalFlip, ToTensor and Normalize, a DataLoader with W workers, float32, torch's default layout.
* **usual loader + our compute, W workers**: the same loader, but the network runs as in the course loop (its precision
  and layout), so that the ratio shows what the data path alone costs.
* **compute alone**: forward, backward and step on one batch that is in memory already, in the course loop's precision
  and layout: what no loop can beat.

The rows take turns, round by round, so that a disturbance of the machine meets all of them; the median over the rounds
is reported. Each turn's first steps are not counted (workers start, caches warm).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from course_utils import augment, data, data_files, runtime, training
from course_utils.resnet import resnet20

BATCH_SIZE = 128
WARMUP_STEPS = 6


class PilImages(Dataset):
    """The training images one by one, as PIL images through a transform: what torchvision's data sets do."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, transform: Callable):
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()  # (N, H, W, C)
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        image = self.images[index]
        return self.transform(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)), self.labels[index]


def usual_loader(dataset: data.Dataset, n_workers: int) -> DataLoader:
    """Build the usual DataLoader: random crop with padding 4, random flip, to float, normalise."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(dataset.train_images.shape[-1], padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
        ]
    )
    images = PilImages(dataset.train_images, dataset.train_labels, transform)
    return DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=n_workers, drop_last=True)


def time_steps(dataset: data.Dataset, on: runtime.Runtime, batches: Iterable, channels_last: bool) -> list[float]:
    """Train a fresh ResNet-20 on the batches; return the clock after each step."""
    model = resnet20(dataset.n_channels, dataset.n_classes).train()
    forward = torch.compile(model) if on.compile else model
    optimizer = training.sgd(model, lr=0.01)
    clock = []
    for images, labels in batches:
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with on.autocast():
            logits = forward(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clock.append(time.perf_counter())
    return clock


def course_loop(dataset: data.Dataset, on: runtime.Runtime, steps: int) -> list[float]:
    """Run `fit` for one epoch of that many steps; return the clock after each step."""
    clock: list[float] = []
    subset = dataset.subset(n_train=steps * BATCH_SIZE)
    model = resnet20(dataset.n_channels, dataset.n_classes)
    options = {"epochs": 1, "batch_size": BATCH_SIZE, "lr": 0.01, "evaluate_every": 0, "progress": False}
    training.fit(model, subset, on=on, after_step=lambda state: clock.append(time.perf_counter()), **options)
    return clock


def usual_recipe(dataset: data.Dataset, on: runtime.Runtime, steps: int, n_workers: int, ours: bool) -> list[float]:
    """Run the usual loader for that many steps, in plain float32 or with the course loop's compute."""
    loader = usual_loader(dataset.subset(n_train=steps * BATCH_SIZE), n_workers)
    compute = on if ours else runtime.Runtime(on.device, "fp32", on.threads)
    return time_steps(dataset, compute, loader, channels_last=ours)


def compute_alone(dataset: data.Dataset, on: runtime.Runtime, steps: int) -> list[float]:
    """Train on one resident batch over and over."""
    images = augment.normalise(dataset.train_images[:BATCH_SIZE], dataset.mean, dataset.std)

    def same_batch() -> Iterator:
        for _ in range(steps):
            yield images, dataset.train_labels[:BATCH_SIZE]

    return time_steps(dataset, on, same_batch(), channels_last=True)


def images_per_second(clock: list[float]) -> float:
    """Compute the throughput over all steps but the first ones."""
    return BATCH_SIZE * (len(clock) - 1 - WARMUP_STEPS) / (clock[-1] - clock[WARMUP_STEPS])


def rows(dataset: data.Dataset, on: runtime.Runtime, steps: int) -> dict[str, Callable[[], list[float]]]:
    """Return the contenders by name."""
    contenders = {"course loop": lambda: course_loop(dataset, on, steps)}
    for n_workers in (0, 2):
        for ours, name in ((False, "usual recipe"), (True, "usual loader + our compute")):
            contenders[f"{name}, {n_workers} workers"] = lambda w=n_workers, o=ours: usual_recipe(
                dataset, on, steps, w, o
            )
    contenders["compute alone"] = lambda: compute_alone(dataset, on, steps)
    return contenders


def measure(dataset: data.Dataset, on: runtime.Runtime, steps: int, rounds: int) -> dict[str, float]:
    """Let the contenders take turns; return each one's median throughput in images per second."""
    results: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, contender in rows(dataset, on, steps).items():
            results.setdefault(name, []).append(images_per_second(contender()))
    return {name: statistics.median(values) for name, values in results.items()}


def report(on: runtime.Runtime, throughput: dict[str, float]) -> None:
    """Print one table: throughput, and the course loop's throughput divided by each row's."""
    print(f"\n{on.describe()}")
    print(f"{'':38s}{'images/s':>10s}{'course loop is':>16s}")
    for name, value in throughput.items():
        print(f"{name:38s}{value:10.0f}{throughput['course loop'] / value:15.2f}x")


def main() -> None:
    """Measure in bf16 (where the processor is fast at it) and in fp32, and print both tables."""
    parser = argparse.ArgumentParser(description="training throughput against the usual recipe")
    parser.add_argument("--steps", type=int, default=40, help="steps a turn, of which the first ones are not counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("bf16", "fp32"), help="default: the fastest and fp32")
    parser.add_argument("--dataset", choices=("cifar10", "fashion_mnist"), help="default: CIFAR-10 where it is there")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compile", action="store_true", help="torch.compile in all rows but the usual recipe")
    options = parser.parse_args()
    name = options.dataset or ("cifar10" if data_files.cifar10_path().is_file() else "fashion_mnist")
    dataset = data.load(name)
    fastest = runtime.detect("cpu", threads=options.threads)
    print(f"ResNet-20 on {name}, batch {BATCH_SIZE}, median of {options.rounds} rounds of {options.steps} steps")
    precisions = (options.precision,) if options.precision else dict.fromkeys((fastest.precision, "fp32"))
    for precision in precisions:
        on = runtime.detect(fastest.device, precision, compile=options.compile)
        report(on, measure(dataset, on, options.steps, options.rounds))


if __name__ == "__main__":
    main()
