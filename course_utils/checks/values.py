"""Plain data: what a check may compare, and its JSON form.

A check never calls methods of the value that it was given when it compares: `plain` first copies the value into exact
built-in types and base-class NumPy arrays. What a check sees can therefore be written down, sent elsewhere and compared
there, and an object with an `__eq__` of its own gains nothing by it.
"""

from __future__ import annotations

import base64
import sys
from typing import Any

import numpy as np

MAX_DEPTH = 10
MAX_ITEMS = 10_000
MAX_ARRAY_BYTES = 32 * 2**20


class NotPlain(TypeError):
    """The value is not data that a check can compare; the message says what it is and what to do."""


def plain(value: Any, depth: int = 0) -> Any:
    """The value as exact plain data: None, bool, int, float, str, np.ndarray, list and dict of them.

    Tuples become lists, NumPy scalars become Python numbers, torch tensors become arrays (detached, on the CPU;
    bfloat16 and float16 tensors become float32). Raises NotPlain for anything else.
    """
    if depth > MAX_DEPTH:
        raise NotPlain(f"data nested more than {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if _is_tensor(value):
        try:
            return _plain_array(_tensor_to_array(value))
        except (RuntimeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise NotPlain(f"a {value.dtype} tensor that has no array form ({reason})") from None
    if isinstance(value, (list, tuple, dict)):
        return _plain_container(value, depth)
    raise NotPlain(_advice(value))


def _plain_array(value: np.ndarray) -> np.ndarray:
    """A contiguous copy as base-class array of booleans, integers or floats (complex allowed)."""
    array = np.array(value, copy=True, subok=False, order="C")
    if array.dtype.kind not in "biufc":
        raise NotPlain(f"an array of dtype {array.dtype}; expected an array of numbers or booleans")
    if array.nbytes > MAX_ARRAY_BYTES:
        raise NotPlain(
            f"an array of {array.nbytes / 2**20:.0f} MiB; at most {MAX_ARRAY_BYTES / 2**20:.0f} MiB are compared"
        )
    return array


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # a tensor exists only where torch has been imported already
    return torch is not None and isinstance(value, torch.Tensor)


def _tensor_to_array(tensor: Any) -> np.ndarray:
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    tensor = tensor.resolve_conj().resolve_neg()
    return tensor.to_dense().numpy() if tensor.layout != torch.strided else tensor.numpy()


def _plain_container(value: list | tuple | dict, depth: int) -> list | dict:
    if len(value) > MAX_ITEMS:
        raise NotPlain(
            f"a {type(value).__name__} of {len(value)} items; at most {MAX_ITEMS} are compared (use an array)"
        )
    if isinstance(value, dict):
        if not all(isinstance(key, (str, int)) for key in value):
            raise NotPlain("a dict with keys that are neither strings nor whole numbers")
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    return [plain(item, depth + 1) for item in value]


def _advice(value: Any) -> str:
    """What an unsuitable value is, with the likeliest cause."""
    name = type(value).__name__
    if value is Ellipsis:
        return "an ellipsis (...); replace it by your answer"
    if callable(value):
        return f"a {name}, not data; did you forget the parentheses of a call?"
    if hasattr(value, "__next__"):
        return f"a {name}, not data; collect its items in a list or array first"
    return f"a {name}; expected a number, a string, an array, a tensor, or a list or dict of these"


def describe(value: Any, limit: int = 60) -> str:
    """One-line description of plain data for a table: of arrays the values, or dtype, shape and a few values."""
    if isinstance(value, int) and abs(value) > 10**60:
        return "a number of more than 60 digits"
    text = _describe_array(value) if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _describe_array(array: np.ndarray, most: int = 6) -> str:
    """'[1, 2.5, 0]' of a short vector, 'float64 (201, 5): 0, 0, 0, ..., 1.56' of anything else."""
    flat = array.ravel()
    chosen = flat if flat.size <= most else flat[[0, 1, 2, -1]]
    values = [f"{item + 0.0:.6g}" if array.dtype.kind in "iuf" else str(item) for item in chosen]
    if flat.size > most:
        values.insert(3, "...")
    text = ", ".join(values)
    return f"[{text}]" if array.ndim == 1 and flat.size <= most else f"{array.dtype} {array.shape}: {text}"


def to_json(value: Any) -> Any:
    """Plain data as JSON data: arrays keep dtype, shape and exact bytes; floats are hexadecimal, nan and inf too."""
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        return {
            "array": base64.b64encode(little.tobytes()).decode(),
            "dtype": little.dtype.str,
            "shape": list(value.shape),
        }
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {key: to_json(item) for key, item in value.items()}}
    return value


def from_json(data: Any, depth: int = 0) -> Any:
    """The inverse of to_json. Builds arrays from bytes and numbers from text; runs no code found in the data."""
    if depth > 2 * MAX_DEPTH:
        raise ValueError("data nested too deeply")
    if isinstance(data, list):
        if len(data) > MAX_ITEMS:
            raise ValueError(f"a list of {len(data)} items; at most {MAX_ITEMS} are read")
        return [from_json(item, depth + 1) for item in data]
    if not isinstance(data, dict):
        return data
    if "array" in data:
        return _array_from_json(data)
    if "float" in data:
        return float.fromhex(data["float"])
    if "dict" in data and isinstance(data["dict"], dict):
        return {key: from_json(item, depth + 1) for key, item in data["dict"].items()}
    raise ValueError(f"not the JSON form of plain data: an object with the keys {sorted(data)[:5]}")


def _array_from_json(data: dict) -> np.ndarray:
    dtype = np.dtype(str(data["dtype"]))
    if dtype.kind not in "biufc":
        raise ValueError(f"an array of dtype {dtype} is not plain data")
    content = base64.b64decode(data["array"], validate=True)
    array = np.frombuffer(content, dtype=dtype).reshape([int(size) for size in data["shape"]])
    return array.astype(dtype.newbyteorder("="))
