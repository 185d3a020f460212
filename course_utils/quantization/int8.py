"""Integer inference that is really faster: a network as ONNX graph, calibrated and run by onnxruntime.

Fake quantization computes with floats that happen to lie on a grid. Here weights *and activations* are 8-bit integers,
and products are integer products, for which processors have instructions of their own (VNNI on x86: four int8 products
and their sum in one lane at once). Static quantization in three steps:

1. export the network as a graph of operations, batch normalisation folded into the convolutions before it;
2. **calibrate**: run it on some images and choose a range for every activation: the extremes (`"minmax"`), or a range
   that leaves out rare large values, chosen from a histogram (`"entropy"`, `"percentile"`);
3. write weights as int8 (one scale for each output channel), and scale and zero point of every tensor, into the graph.

x86 processors multiply *unsigned* by *signed* bytes; so activations are uint8 (with a zero point) and weights int8.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from course_utils import augment, runtime
from course_utils.data import Dataset
from course_utils.latency import Latency, measure_latency

CALIBRATIONS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm", "avx_vnni_int8"}  # as Linux spells them


def export_onnx(model: nn.Module, path: str | Path, image_shape: tuple[int, ...]) -> int:
    """Write a network as an ONNX graph with input "images" (N, C, H, W), for any N, and output "logits".

    Args:
        model: Any module that maps images to logits; it is exported in evaluation mode and left in its own.
        path: The file to write.
        image_shape: Shape of one image (C, H, W).

    Returns:
        Size of the file in bytes.
    """
    was_training = model.training
    model.eval()
    example = torch.zeros(2, *image_shape, device=next(model.parameters()).device)
    options = {"dynamo": True, "external_data": False, "verbose": False}
    names = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    with _quiet():
        torch.onnx.export(model, (example,), str(path), **names, **options)
    model.train(was_training)
    return Path(path).stat().st_size


def quantize_onnx(
    float_path: str | Path,
    int8_path: str | Path,
    images: np.ndarray,
    calibration: str = "minmax",
    *,
    signed_activations: bool = False,
    per_channel: bool = True,
) -> int:
    """Quantize an ONNX graph to 8-bit weights and activations.

    Args:
        float_path: What `export_onnx` wrote.
        int8_path: The file to write.
        images: Normalised images for the calibration, (N, C, H, W) float32.
        calibration: `"minmax"`, `"entropy"` or `"percentile"`: how activations' ranges are chosen.
        signed_activations: int8 activations instead of uint8; many x86 processors have no fast path for them.
        per_channel: One scale for each output channel of a weight instead of one for the tensor.

    Returns:
        Size of the file in bytes. Where products of uint8 and int8 saturate (see `products_saturate`), the weights of
        a network with uint8 activations have 7 bits.

    Raises:
        ValueError: If there is no such calibration.

    Source:
        Jacob et al. (2018), sections 2 and 3.1; onnxruntime's guide "Quantize ONNX models" (static quantization, QDQ).
    """
    from onnxruntime import quantization as ort_quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {sorted(CALIBRATIONS)}, got {calibration!r}")
    kinds = ort_quantization.QuantType
    prepared = Path(int8_path).with_suffix(".prepared.onnx")
    with _quiet():
        quant_pre_process(str(float_path), str(prepared))
        ort_quantization.quantize_static(
            str(prepared), str(int8_path), _reader(images),
            quant_format=ort_quantization.QuantFormat.QDQ, per_channel=per_channel,
            reduce_range=not signed_activations and products_saturate(),
            activation_type=kinds.QInt8 if signed_activations else kinds.QUInt8, weight_type=kinds.QInt8,
            calibrate_method=getattr(ort_quantization.CalibrationMethod, CALIBRATIONS[calibration]),
        )  # fmt: skip
    prepared.unlink()
    return Path(int8_path).stat().st_size


def _reader(images: np.ndarray, batch_size: int = 64):
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):
        def __init__(self):
            self.batches = iter(np.array_split(images, max(1, len(images) // batch_size)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    return Batches()


class OnnxNetwork:
    """An ONNX graph in onnxruntime, on the CPU: `network(images)` returns logits.

    Args:
        path: The file.
        threads: Threads of a run; torch's number when None.
    """

    def __init__(self, path: str | Path, threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Map normalised images (N, C, H, W) float32 to logits (N, classes)."""
        return self.session.run(None, {"images": images})[0]

    def accuracy(self, dataset: Dataset, batch_size: int = 250) -> float:
        """Compute the fraction of the test images that are classified correctly."""
        batches = dataset.test_images.split(batch_size)
        predicted = [self(normalised(dataset, batch)).argmax(1) for batch in batches]
        return float((np.concatenate(predicted) == dataset.test_labels.numpy()).mean())


@dataclass(frozen=True)
class InferenceRow:
    """One way to run a network.

    Attributes:
        name: What it is.
        size_bytes: Size of its file.
        accuracy: On the test images, in [0, 1].
        latencies: Batch size -> time of a call.
    """

    name: str
    size_bytes: int
    accuracy: float
    latencies: dict[int, Latency]


def measure_networks(
    paths: dict[str, Path], dataset: Dataset, batch_sizes: tuple[int, ...] = (1, 64), rounds: int = 5
) -> list[InferenceRow]:
    """Measure bytes, accuracy and latency of several graphs; they take turns, so that a disturbance meets all of them.

    Args:
        paths: Name -> ONNX file.
        dataset: Test images for the accuracy and for timing.
        batch_sizes: Images a timed call.
        rounds: Turns; of a graph's turns the one with the median of the medians counts.

    Returns:
        One row for each graph.
    """
    networks = {name: OnnxNetwork(path) for name, path in paths.items()}
    turns: dict[tuple[str, int], list[Latency]] = {(name, batch): [] for name in networks for batch in batch_sizes}
    for batch in batch_sizes:
        images = normalised(dataset, dataset.test_images[:batch])
        for _ in range(rounds):
            for name, network in networks.items():
                call = _Call(network, images)
                turns[name, batch].append(measure_latency(call, warmup=2, repeats=5 if batch > 8 else 20))
    rows = []
    for name, network in networks.items():
        times = {batch: sorted(turns[name, batch], key=lambda t: t.median_ms)[rounds // 2] for batch in batch_sizes}
        rows.append(InferenceRow(name, paths[name].stat().st_size, network.accuracy(dataset), times))
    return rows


@dataclass(frozen=True)
class _Call:
    network: OnnxNetwork
    images: np.ndarray

    def __call__(self) -> np.ndarray:
        return self.network(self.images)


def normalised(dataset: Dataset, images: torch.Tensor) -> np.ndarray:
    """Return images (N, C, H, W) uint8 as the float32 array that a network of this data set expects."""
    return augment.normalise(images, dataset.mean, dataset.std).contiguous().numpy()


def int8_instructions() -> list[str]:
    """Name this processor's instructions for 8-bit products, as the operating system lists them; [] if none is
    known."""
    flags = runtime.cpuinfo("flags") or runtime.cpuinfo("Features")
    return sorted(INT8_FLAGS & set(flags.split()))


def products_saturate() -> bool:
    """Whether sums of two products of uint8 and int8 may overflow their 16 bits: on x86 without VNNI instructions.

    There weights get 7 bits, as onnxruntime's guide "Quantize ONNX models" advises.
    """
    return platform.machine() in ("x86_64", "AMD64") and not int8_instructions()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's and the calibrator's progress messages out of the notebook."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
