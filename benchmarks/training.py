"""Training throughput: our loop, the usual recipe, and the network alone, measured in one run.

    python benchmarks/training.py                  # CIFAR-10 if it is in the cache folder, else Fashion-MNIST
    python benchmarks/training.py --steps 100 --rounds 5
    python benchmarks/training.py --compile        # with torch.compile (needs a C++ compiler)

Every row trains ResNet-20 with batches of 128 and stochastic gradient descent with Nesterov momentum:

* **course loop**: `course_utils.training.fit` (uint8 images in memory, batched augmentation, channels-last input, the
  fused optimiser, freed memory kept).
* **usual recipe, W workers**: what most tutorials write: a data set of PIL images, torchvision's RandomCrop,
  RandomHorizontalFlip, ToTensor and Normalize, a DataLoader with W workers, float32, and torch's defaults for layout,
  optimiser and memory.
* **usual loader + our compute, W workers**: the same loader, but the network runs as in the course loop, so that the
  ratio shows what the data path alone costs.
* **compute alone**: forward, backward and step on one batch that is in memory already, otherwise as in the course loop:
  what no loop can beat.

The rows take turns, round by round, so that a disturbance of the machine meets all of them; the median over the rounds
is reported. Each turn has a process of its own, because what the course sets for a process (its allocator, see
`runtime.keep_freed_memory`) would serve the usual recipe too. Its first steps are not counted (workers start, caches
warm, kernels are compiled).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

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


def time_steps(dataset: data.Dataset, batches: Iterable, on: runtime.Runtime | None) -> list[float]:
    """Train a fresh ResNet-20 on the batches; return the clock after each step.

    Args:
        dataset: Gives the number of channels and classes.
        batches: (images, labels) pairs.
        on: Compute as in the course loop, in this precision; None computes with torch's defaults, in float32.
    """
    model = resnet20(dataset.n_channels, dataset.n_classes).train()
    if on is None:
        on = runtime.Runtime(torch.device("cpu"), "fp32", torch.get_num_threads())
        forward, layout = model, torch.contiguous_format
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    else:
        runtime.keep_freed_memory()
        forward, layout = torch.compile(model) if on.compile else model, torch.channels_last
        optimizer = training.sgd(model, lr=0.01)
    clock = []
    for images, labels in batches:
        with on.autocast():
            logits = forward(images.contiguous(memory_format=layout))
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


def usual_recipe(dataset: data.Dataset, on: runtime.Runtime, steps: int, *, n_workers: int, ours: bool) -> list[float]:
    """Run the usual loader for that many steps, with torch's defaults or with the course loop's compute."""
    loader = usual_loader(dataset.subset(n_train=steps * BATCH_SIZE), n_workers)
    return time_steps(dataset, loader, on if ours else None)


def compute_alone(dataset: data.Dataset, on: runtime.Runtime, steps: int) -> list[float]:
    """Train on one resident batch over and over."""
    images = augment.normalise(dataset.train_images[:BATCH_SIZE], dataset.mean, dataset.std)

    def same_batch() -> Iterator:
        for _ in range(steps):
            yield images, dataset.train_labels[:BATCH_SIZE]

    return time_steps(dataset, same_batch(), on)


CONTENDERS = {
    "course loop": course_loop,
    "usual recipe, 0 workers": partial(usual_recipe, n_workers=0, ours=False),
    "usual loader + our compute, 0 workers": partial(usual_recipe, n_workers=0, ours=True),
    "usual recipe, 2 workers": partial(usual_recipe, n_workers=2, ours=False),
    "usual loader + our compute, 2 workers": partial(usual_recipe, n_workers=2, ours=True),
    "compute alone": compute_alone,
}


def images_per_second(clock: list[float]) -> float:
    """Compute the throughput over all steps but the first ones."""
    return BATCH_SIZE * (len(clock) - 1 - WARMUP_STEPS) / (clock[-1] - clock[WARMUP_STEPS])


def turn(name: str, dataset_name: str, on: runtime.Runtime, steps: int) -> float:
    """Let one contender train in this process; return its throughput in images per second."""
    torch.set_num_threads(on.threads)
    return images_per_second(CONTENDERS[name](data.load(dataset_name), on, steps))


def measure(dataset_name: str, on: runtime.Runtime, steps: int, rounds: int) -> dict[str, float]:
    """Let the contenders take turns; return each one's median throughput in images per second."""
    results: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh_process:
        for _ in range(rounds):
            for name, values in results.items():
                values.append(fresh_process.submit(turn, name, dataset_name, on, steps).result())
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
    fastest = runtime.detect("cpu", threads=options.threads)
    print(f"ResNet-20 on {name}, batch {BATCH_SIZE}, median of {options.rounds} rounds of {options.steps} steps")
    precisions = (options.precision,) if options.precision else dict.fromkeys((fastest.precision, "fp32"))
    for precision in precisions:
        on = runtime.detect(fastest.device, precision, options.threads, compile=options.compile)
        report(on, measure(name, on, options.steps, options.rounds))


if __name__ == "__main__":
    main()
