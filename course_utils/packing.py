"""Files that leave the zeros out.

A dense file stores every weight, zero or not: 4 bytes each. Two ways to store only the k weights that are not zero,
out of n, without losing any of them:

* **bitmap + values**: one bit a weight says whether it is there, then the k values in order: n / 8 + 4 k bytes. It
  wins over dense as soon as more than 1 in 32 weights is zero.
* **CSR + values** (compressed sparse rows): for each row (output channel) how many weights it has, for each weight its
  column, then the k values. A column number takes 2 bytes where a row has more than 256 weights, else 1: about
  (4 + 2) k bytes. It wins over the bitmap only when very few weights are left (2 k < n / 8: sparsity above 94 %).

A quantized weight has few different values; for those there is

* **codebook + codes**: for each output channel the list of its different values, for each weight that is not zero the
  number of its value in ceil(log2 values) bits, and a bitmap of the zeros if there are any. Layers that this would not
  make smaller (those that stayed in float) are written as bitmap + values.

Sizes here are sizes of files that were written and read back, with headers and with everything that is not pruned
(biases, batch-norm), not numbers from these formulas. The container is safetensors: names, shapes, raw numbers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from course_utils.checkpoints import check_fit, save_weights
from course_utils.data_files import DamagedData, MissingData
from course_utils.resnet import check_weights_are_parameters, weighted_layers

LAYOUTS = ("bitmap", "csr", "codebook")
PARTS = ("bitmap", "values", "row_starts", "columns", "codes", "codebook")  # what `unpack` may find of a weight


def save_dense(model: nn.Module, path: str | Path) -> int:
    """Write all parameters and buffers, zeros included, to a safetensors file.

    Args:
        model: Any module.
        path: The file to write.

    Returns:
        Size of the file in bytes.
    """
    return save_weights(model, path)


def save_packed(model: nn.Module, path: str | Path, layout: str = "bitmap") -> int:
    """Write a model so that the zeros of its convolution and linear weights take (almost) no room.

    Args:
        model: Any module; its parameters and buffers are float32 or integers. What is no weight of a convolution or
            linear layer is written dense.
        path: The file to write.
        layout: `"bitmap"`, `"csr"` or `"codebook"`; see the module's text.

    Returns:
        Size of the file in bytes.

    Raises:
        TypeError: If a parameter or buffer is a floating-point number other than float32: the file would be smaller
            (or larger) for another reason than zeros.
        ValueError: If there is no such layout, or a layer's weight is computed from other parameters.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {sorted(LAYOUTS)}, got {layout!r}")
    check_weights_are_parameters(model)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise TypeError(f"{name} must be float32 to be packed, got {tensor.dtype}; call model.float() first")
    shapes = {}
    for name in _weight_names(model):
        weight = tensors.pop(name)
        shapes[name] = list(weight.shape)
        parts = pack(weight, layout)
        tensors |= {f"{name}:{part}": tensor for part, tensor in parts.items()}
    metadata = {"layout": layout, "shapes": json.dumps(shapes, separators=(",", ":"))}
    return Path(path).write_bytes(safetensors.torch.save(tensors, metadata=metadata))


def load_packed(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a file that `save_packed` wrote into a model of the same shape, in place.

    Args:
        model: The model to fill.
        path: The file.

    Returns:
        The same model; every weight has the value that was saved.

    Raises:
        MissingData: If the file is not there.
        DamagedData: If it cannot be read, or was not written by `save_packed`.
        ValueError: If its tensors do not fit the model; the message names them.
    """
    tensors = read_packed(path)
    check_fit(path, tensors, model.state_dict(), f"this {type(model).__name__}")
    model.load_state_dict(tensors)
    return model


def read_packed(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a file that `save_packed` wrote as dense tensors.

    Args:
        path: The file.

    Returns:
        Name -> tensor, as `model.state_dict()` had it.

    Raises:
        MissingData: If the file is not there.
        DamagedData: If it cannot be read, or was not written by `save_packed`.
    """
    if not Path(path).is_file():
        raise MissingData(f"packed model {path} is missing")
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no dict
        for name, shape in json.loads(metadata["shapes"]).items():
            parts = {part: tensors.pop(f"{name}:{part}") for part in PARTS if f"{name}:{part}" in tensors}
            tensors[name] = unpack(parts, tuple(shape))
    except (OSError, LookupError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise DamagedData(f"{path} is not a packed model ({type(error).__name__}: {error})") from error
    return tensors


def pack(weight: torch.Tensor, layout: str) -> dict[str, torch.Tensor]:
    """Split a weight into the arrays of a layout, one of LAYOUTS."""
    return {"bitmap": pack_bitmap, "csr": pack_csr, "codebook": pack_codebook}[layout](weight)


def pack_bitmap(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split a weight into one bit an entry (is it non-zero?) and the non-zero values, both in row-major order.

    Args:
        weight: Any shape, float32, n entries of which k are not zero.

    Returns:
        `bitmap` (ceil(n / 8),) uint8 and `values` (k,) float32.
    """
    flat = weight.reshape(-1)
    bits = np.packbits((flat != 0).numpy())
    return {"bitmap": torch.from_numpy(bits), "values": flat[flat != 0]}


def pack_csr(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split a weight, seen as a matrix with one row an output channel, into CSR's three arrays.

    Args:
        weight: Shape (rows, ...), float32, k entries not zero; columns are the product of the other sizes.

    Returns:
        `row_starts` (rows + 1,) int32, `columns` (k,) in the narrowest of uint8, uint16, int32, `values` (k,) float32.
    """
    matrix = weight.reshape(len(weight), -1)
    rows, columns = torch.nonzero(matrix, as_tuple=True)
    return {
        "row_starts": torch.bincount(rows + 1, minlength=len(matrix) + 1).cumsum(0).to(torch.int32),
        "columns": columns.to(_narrowest(matrix.shape[1])),
        "values": matrix[rows, columns],
    }


def pack_codebook(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split a weight of few different values into values, numbers of values, and a bitmap of the zeros.

    Args:
        weight: Shape (rows, ...), float32; rows are output channels.

    Returns:
        `codebook` (rows, most values of a row other than 0) float32, `codes` uint8 (the numbers of the weights that are
        not zero, ceil(log2 values) bits each, least significant first) and `bitmap` uint8, empty where no weight is
        zero. Where bitmap + values would be smaller: the parts of `pack_bitmap`.
    """
    rows = weight.reshape(len(weight), -1).numpy()
    values = [np.unique(row[row != 0]) for row in rows]
    codebook = np.zeros((len(rows), max(1, *map(len, values))), np.float32)
    for book, own in zip(codebook, values, strict=True):
        book[: len(own)] = own
    codes = np.concatenate([np.searchsorted(own, row[row != 0]) for own, row in zip(values, rows, strict=True)])
    bits = (codes[:, None] >> np.arange(_n_bits(codebook.shape[1]))) & 1
    zeros = np.packbits(rows != 0) if (rows == 0).any() else np.empty(0, np.uint8)
    packed = {"codebook": codebook, "codes": np.packbits(bits.astype(np.uint8)), "bitmap": zeros}
    dense = pack_bitmap(weight)
    if sum(part.nbytes for part in packed.values()) >= sum(part.nbytes for part in dense.values()):
        return dense
    return {name: torch.from_numpy(part) for name, part in packed.items()}


def unpack(parts: dict[str, torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """Rebuild the weight from the arrays of `pack_bitmap`, `pack_csr` or `pack_codebook`.

    Args:
        parts: The arrays by name.
        shape: Shape of the weight.

    Returns:
        The weight, float32, of that shape.
    """
    if "codebook" in parts:
        return _from_codebook(parts, shape)
    weight = torch.zeros(shape, dtype=parts["values"].dtype)
    if "bitmap" in parts:
        present = np.unpackbits(parts["bitmap"].numpy(), count=weight.numel()).astype(bool)
        weight.view(-1)[torch.from_numpy(present)] = parts["values"]
        return weight
    counts = parts["row_starts"].long().diff()
    rows = torch.repeat_interleave(torch.arange(len(counts)), counts)
    weight.view(len(counts), -1)[rows, parts["columns"].long()] = parts["values"]
    return weight


def _from_codebook(parts: dict[str, torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    codebook, bitmap = parts["codebook"].numpy(), parts["bitmap"].numpy()
    weight = np.zeros((shape[0], int(np.prod(shape[1:]))), np.float32)
    present = np.unpackbits(bitmap, count=weight.size).astype(bool) if len(bitmap) else np.ones(weight.size, bool)
    n_codes, n_bits = int(present.sum()), _n_bits(codebook.shape[1])
    bits = np.unpackbits(parts["codes"].numpy(), count=n_codes * n_bits).reshape(n_codes, n_bits)
    codes = (bits.astype(np.int64) << np.arange(n_bits)).sum(1)
    rows = np.flatnonzero(present) // weight.shape[1]
    weight.reshape(-1)[present] = codebook[rows, codes]
    return torch.from_numpy(weight.reshape(shape))


def _n_bits(n_values: int) -> int:
    """Return the bits that n_values different numbers need, at least 1."""
    return max(1, (n_values - 1).bit_length())


def size_on_disk(model: nn.Module, layout: str = "dense") -> int:
    """Measure how many bytes a model's file has: write it, read it back, compare, and delete it.

    Args:
        model: Any module.
        layout: `"dense"`, `"bitmap"`, `"csr"` or `"codebook"`.

    Returns:
        Size of the file in bytes, headers included.

    Raises:
        TypeError: If a packed model is not float32.
        ValueError: If there is no such layout.
        RuntimeError: If what was read back differs from the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        if layout == "dense":
            size_bytes, read_back = save_dense(model, path), safetensors.torch.load_file(path)
        else:
            size_bytes = save_packed(model, path, layout)
            read_back = read_packed(path)
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor.cpu(), read_back[name]):
            raise RuntimeError(f"{name} differs after writing and reading the {layout} file")
    return size_bytes


def _weight_names(model: nn.Module) -> list[str]:
    return [f"{name}.weight" if name else "weight" for name, _ in weighted_layers(model)]


def _narrowest(n_columns: int) -> torch.dtype:
    """Return the smallest integer type that holds the numbers 0 to n_columns - 1."""
    if n_columns <= 2**8:
        return torch.uint8
    return torch.uint16 if n_columns <= 2**16 else torch.int32
