"""A file for a pruned network with shared weights: codebooks, codes and gaps, each as short as its code makes it.

All convolution and linear weights of the network are seen as one long vector. Of the weights that are not zero the file
holds which codebook entry each one has (its *code*) and how many zeros lie before it (its *gap*). Codes and gaps are
two streams of bits; each comes with the table that decodes it: the symbols and the lengths of their codes, from which
the (canonical) code words follow. Everything else (biases, batch normalisation) is stored as float32. The container is
safetensors; sizes are those of the file, headers included.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from bitarray import bitarray
from torch import nn

from course_utils.data_files import DamagedData, MissingData
from course_utils.packing import size_on_disk
from course_utils.resnet import weighted_layers

PrefixCode = Callable[[dict[Hashable, int]], dict[Hashable, str]]
Sizes = dict[str, dict[str, int]]
REST = "biases and batch norm"


@dataclass(frozen=True)
class SharedNetwork:
    """A network whose weights are 0 or an entry of their layer's codebook.

    Attributes:
        codebooks: One row a layer, shape (layers, n_codes), float32.
        codes: Codebook entry of each weight that is not zero, layer after layer, shape (k,).
        gaps: Number of zeros before each of them, counted through all layers, shape (k,).
        rest: All other parameters and buffers, one after the other, float32.
        n_weights: Number of convolution and linear weights.
    """

    codebooks: np.ndarray
    codes: np.ndarray
    gaps: np.ndarray
    rest: np.ndarray
    n_weights: int


def share_network(
    model: nn.Module, n_codes: int, share: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
) -> SharedNetwork:
    """Give every layer a codebook and replace each weight that is not zero by the number of its entry.

    Args:
        model: The (pruned) network; it is not changed.
        n_codes: Entries of a layer's codebook.
        share: Function of a vector and n_codes that returns codebook and codes, like `share_weights`.

    Returns:
        Codebooks, codes and gaps.
    """
    weights = [layer.weight.detach().cpu().double().numpy().ravel() for _, layer in weighted_layers(model)]
    shared = [share(w[w != 0], n_codes) if w.any() else (np.zeros(n_codes), np.zeros(0, np.int64)) for w in weights]
    positions = np.flatnonzero(np.concatenate(weights))
    return SharedNetwork(
        codebooks=np.stack([codebook for codebook, _ in shared]).astype(np.float32),
        codes=np.concatenate([codes for _, codes in shared]).astype(np.int64),
        gaps=np.diff(positions, prepend=-1) - 1,
        rest=np.concatenate([tensor.numpy().ravel() for tensor in _rest(model).values()]).astype(np.float32),
        n_weights=sum(map(len, weights)),
    )


def restore(model: nn.Module, shared: SharedNetwork) -> nn.Module:
    """Set a network's weights to what codebooks, codes and gaps say, and everything else to what is stored, in place.

    Args:
        model: A network of the same shape.
        shared: What `share_network` or `read_compressed` returned.

    Returns:
        The same network.
    """
    positions = np.cumsum(shared.gaps + 1) - 1
    layers = [layer for _, layer in weighted_layers(model)]
    ends = np.cumsum([layer.weight.numel() for layer in layers])
    flat = np.zeros(ends[-1], dtype=np.float32)
    flat[positions] = shared.codebooks[np.searchsorted(ends, positions, side="right"), shared.codes]
    rest, start = _rest(model), 0
    with torch.no_grad():
        for layer, part in zip(layers, np.split(flat, ends[:-1]), strict=True):
            layer.weight.copy_(torch.from_numpy(part).view(layer.weight.shape))
        for tensor in rest.values():
            tensor.copy_(torch.from_numpy(shared.rest[start : start + tensor.numel()]).view(tensor.shape))
            start += tensor.numel()
    return model


def write_compressed(shared: SharedNetwork, path: str | Path, prefix_code: PrefixCode) -> dict[str, int]:
    """Write codebooks, codes and gaps to a file.

    Args:
        shared: What to write.
        path: The file.
        prefix_code: Function from counts to code words, like `huffman_code` or `fixed_length_code`.

    Returns:
        Bytes by part: "weights" (the codes), "positions" (the gaps), "codebooks and tables", "biases and batch norm",
        "headers"; their sum is the size of the file.
    """
    tensors = {"codebooks": shared.codebooks, "rest": shared.rest}
    for name, symbols in (("codes", shared.codes), ("gaps", shared.gaps)):
        lengths = {symbol: len(word) for symbol, word in prefix_code(Counter(symbols.tolist())).items()}
        bits = bitarray()
        bits.encode(canonical_code(lengths), symbols.tolist())
        tensors[f"{name}:bits"] = np.frombuffer(bits.tobytes(), dtype=np.uint8)
        tensors[f"{name}:symbols"] = np.array(list(lengths), dtype=np.uint32)
        tensors[f"{name}:lengths"] = np.array(list(lengths.values()), dtype=np.uint8)
    size_bytes = Path(path).write_bytes(safetensors.numpy.save(tensors, metadata={"n": str(len(shared.codes))}))
    tables = ("codebooks", "codes:symbols", "codes:lengths", "gaps:symbols", "gaps:lengths")
    parts = {"weights": tensors["codes:bits"].nbytes, "positions": tensors["gaps:bits"].nbytes}
    parts |= {"codebooks and tables": sum(tensors[name].nbytes for name in tables), REST: shared.rest.nbytes}
    return parts | {"headers": size_bytes - sum(parts.values())}


def stage_sizes(model: nn.Module, shared: SharedNetwork, folder: str | Path, prefix_code: PrefixCode) -> Sizes:
    """Write a pruned network's file after each stage of the pipeline and count its bytes by part.

    Args:
        model: The pruned network, with float weights.
        shared: The same with codebooks.
        folder: Where the files go; the last one is `compressed.safetensors`.
        prefix_code: Function from counts to code words, like `huffman_code`.

    Returns:
        Name of the stage -> {part: bytes}.
    """
    sizes, n_kept = {}, len(shared.codes)
    floats = {"dense": (4 * shared.n_weights, 0), "pruned": (4 * n_kept, _n_bitmap_bytes(model))}
    for stage, (n_values, n_positions) in floats.items():
        file_bytes = size_on_disk(model, "dense" if stage == "dense" else "bitmap")
        parts = {"weights": n_values, "positions": n_positions, "codebooks and tables": 0, REST: shared.rest.nbytes}
        sizes[stage] = parts | {"headers": file_bytes - sum(parts.values())}
    sizes["shared weights"] = write_compressed(shared, Path(folder) / "shared.safetensors", fixed_length_code)
    sizes["Huffman codes"] = write_compressed(shared, Path(folder) / "compressed.safetensors", prefix_code)
    return sizes


def _n_bitmap_bytes(model: nn.Module) -> int:
    return sum(math.ceil(layer.weight.numel() / 8) for _, layer in weighted_layers(model))


def read_compressed(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a file that `write_compressed` wrote into a network of the same shape, in place.

    Args:
        model: The network to fill.
        path: The file.

    Returns:
        The same network.

    Raises:
        MissingData: If the file is not there.
        DamagedData: If it cannot be decoded.
        ValueError: If it holds another number of weights than the network.
    """
    if not Path(path).is_file():
        raise MissingData(f"compressed model {path} is missing")
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:
            n = int(stream.metadata()["n"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no dict
        codes, gaps = (_decode(tensors, name, n) for name in ("codes", "gaps"))
    except (OSError, LookupError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise DamagedData(f"{path} is not a compressed model ({type(error).__name__}: {error})") from error
    n_weights = sum(layer.weight.numel() for _, layer in weighted_layers(model))
    n_rest = sum(tensor.numel() for tensor in _rest(model).values())
    if len(tensors["rest"]) != n_rest or int((gaps + 1).sum()) > n_weights:
        raise ValueError(f"{path} does not fit this {type(model).__name__} with {n_weights} weights")
    return restore(model, SharedNetwork(tensors["codebooks"], codes, gaps, tensors["rest"], n_weights))


def _decode(tensors: dict[str, np.ndarray], name: str, n: int) -> np.ndarray:
    """The first n symbols of a stream; the bits that fill its last byte are left over."""
    lengths = zip(tensors[f"{name}:symbols"].tolist(), tensors[f"{name}:lengths"].tolist(), strict=True)
    bits = bitarray()
    bits.frombytes(tensors[f"{name}:bits"].tobytes())
    symbols = np.fromiter(islice(bits.decode(canonical_code(dict(lengths))), n), dtype=np.int64)
    if len(symbols) < n:
        raise ValueError(f"{name}: {len(symbols)} symbols instead of {n}")
    return symbols


def canonical_code(lengths: dict[Hashable, int]) -> dict[Hashable, bitarray]:
    """Assign code words of given lengths in order: shorter ones first, each word the last one plus 1.

    Args:
        lengths: Symbol -> length of its word in bits; the lengths are those of some prefix code.

    Returns:
        Symbol -> word.
    """
    words, word, before = {}, -1, 0
    for symbol, length in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
        word = (word + 1) << (length - before)
        before = length
        words[symbol] = bitarray(f"{word:0{length}b}")
    return words


def fixed_length_code(counts: dict[Hashable, int]) -> dict[Hashable, str]:
    """Give every symbol ceil(log2 n) bits, n the number of symbols: what a file has without Huffman's idea.

    Args:
        counts: Symbol -> how often it occurs; the counts do not matter.

    Returns:
        Symbol -> its code, a string of "0" and "1".
    """
    length = max(1, math.ceil(math.log2(len(counts))))
    return {symbol: f"{number:0{length}b}" for number, symbol in enumerate(counts)}


def entropy_bits(symbols: Sequence[int] | np.ndarray) -> float:
    """Compute the entropy of the symbols' frequencies, -sum_s p_s log2 p_s, in bits a symbol.

    Args:
        symbols: Whole numbers, at least one.

    Returns:
        The entropy; no code for single symbols has a shorter average length.
    """
    p = np.unique(np.asarray(symbols), return_counts=True)[1] / len(symbols)
    return float(-(p * np.log2(p)).sum())


def _rest(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that are no convolution or linear weight, by name; batch counters are left out."""
    weights = {f"{name}.weight" for name, _ in weighted_layers(model)}
    state = {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in weights}
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
