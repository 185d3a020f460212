"""Integer inference: ResNet-20 in onnxruntime, float32 against static int8, with bytes and accuracy.

    python benchmarks/int8.py                        # Fashion-MNIST
    python benchmarks/int8.py --dataset cifar10      # where CIFAR-10 is in the cache folder
    python benchmarks/int8.py --rounds 15 --threads 1

The peer is the same network in float32 in the same runtime. All variants take turns, round by round, so that a
disturbance of the machine meets all of them. The last lines say whether min-max int8 is at least 1.5 times faster at
batch 64, and its accuracy within 0.5 points; on a processor without instructions for 8-bit products the first cannot be
expected, and the table says so.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from course_utils import checkpoints, data, runtime
from course_utils.quantization import int8, quantize_model
from course_utils.quantization.training import step_time_ms

VARIANTS = {
    "int8, min-max": {},
    "int8, entropy": {"calibration": "entropy"},
    "int8, percentile": {"calibration": "percentile"},
    "int8, one scale a tensor": {"per_channel": False},
    "int8, signed activations": {"signed_activations": True},
}
MIN_SPEEDUP, MAX_LOSS = 1.5, 0.005


def export_all(model: torch.nn.Module, dataset: data.Dataset, folder: Path, n_calibration: int) -> dict[str, Path]:
    """Write the float graph and every quantized one; return name -> file."""
    paths = {"float32": folder / "float32.onnx"}
    int8.export_onnx(model, paths["float32"], tuple(dataset.test_images.shape[1:]))
    images = int8.normalised(dataset, dataset.train_images[:n_calibration])
    for number, (name, options) in enumerate(VARIANTS.items()):
        paths[name] = folder / f"int8_{number}.onnx"
        int8.quantize_onnx(paths["float32"], paths[name], images, **options)
    return paths


def report(rows: list[int8.InferenceRow]) -> None:
    """Print the table and the verdict on the two bars."""
    base = rows[0]
    heads = "".join(f"{f'batch {batch}, ms':>16s}{'':8s}" for batch in base.latencies)
    print(f"{'':26s}{'accuracy':>9s}{'bytes':>10s}{heads}")
    for row in rows:
        times = ""
        for batch, time in row.latencies.items():
            times += f"{time.median_ms:16.3f}{base.latencies[batch].median_ms / time.median_ms:7.2f}x"
        print(f"{row.name:26s}{row.accuracy:9.4f}{row.size_bytes:10d}{times}")
    first = rows[1]
    speedup = base.latencies[64].median_ms / first.latencies[64].median_ms
    loss = base.accuracy - first.accuracy
    print(f"\nmin-max int8 at batch 64: {speedup:.2f} x faster (bar {MIN_SPEEDUP}: {_met(speedup >= MIN_SPEEDUP)})")
    print(f"accuracy {-100 * loss:+.2f} points (bar -{100 * MAX_LOSS:.1f}: {_met(loss <= MAX_LOSS)})")


def _met(condition: bool) -> str:
    return "met" if condition else "missed"


def main() -> None:
    """Export, calibrate, measure, print."""
    parser = argparse.ArgumentParser(description="int8 against float32 in onnxruntime")
    parser.add_argument("--dataset", choices=("fashion_mnist", "cifar10"), default="fashion_mnist")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--calibration-images", type=int, default=256)
    options = parser.parse_args()
    on = runtime.detect("cpu", "fp32", threads=options.threads)
    dataset, model = data.load(options.dataset), checkpoints.load_resnet20(options.dataset)
    found = int8.int8_instructions()
    print(on.describe())
    print("8-bit products:", ", ".join(found) or "no instruction known, so int8 need not be faster than float32 here")
    with tempfile.TemporaryDirectory() as folder:
        paths = export_all(model, dataset, Path(folder), options.calibration_images)
        report(int8.measure_networks(paths, dataset, rounds=options.rounds))
    fake = step_time_ms(quantize_model(model, 8), dataset) / step_time_ms(model, dataset)
    print(f"fake quantization to 8 bits in PyTorch, batch 64: {fake:.2f} x the time of the float network")


if __name__ == "__main__":
    main()
