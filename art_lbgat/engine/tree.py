"""State dicts as tensors and JSON: nested containers taken apart and put together, nothing that could run code.

Python's own types come back as what they were: dictionaries with whole-number keys, tuples, NaN and infinities too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Json: TypeAlias = dict[str, Any]
_SCALARS = (bool, int, float, str, type(None))


def take_apart(tree: Any, path: str = "") -> tuple[dict[str, Tensor], Json]:
    """Tensors by their path, and everything else as JSON that says where they were.

    :param tree: Dictionaries and counters with text or whole numbers as keys, lists, tuples, tensors, numpy arrays,
        numbers, text, None; nested as you like.
    :param path: Where in a larger tree this is.
    :return: The tensors (detached, on their devices) and the JSON.
    :raises TypeError: Anything else, with its path.
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, where: str) -> Json:
        """One value; tensors are put aside."""
        if isinstance(value, Tensor):
            tensors[where or "."] = value.detach()
            return {"tensor": where or "."}
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[where or "."] = torch.from_numpy(_of_torch(value))
            return {"array": where or ".", "dtype": str(value.dtype)}
        if isinstance(value, np.generic):
            return encode(value.item(), where)
        if type(value) in _SCALARS:
            return {"value": value}
        if isinstance(value, Mapping):
            for key in value:
                if type(key) not in (str, int):
                    raise TypeError(f"{where or '.'}: expected text or whole numbers as keys, got {key!r}.")
            kind = "counter" if type(value) is Counter else "dict"  # milestones of torch's schedulers are counters
            return {kind: [[key, encode(each, f"{where}/{key}")] for key, each in value.items()]}
        if type(value) in (list, tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [encode(each, f"{where}/{i}") for i, each in enumerate(value)]}
        raise TypeError(f"{where or '.'}: {type(value).__module__}.{type(value).__qualname__} cannot be kept as data.")

    return tensors, encode(tree, path)


def put_together(json: Json, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that :func:`take_apart` took apart, mappings as dictionaries.

    :param json: The JSON.
    :param tensors: The tensors by path.
    :raises ValueError: JSON of another form, or a tensor that is missing.
    """
    try:
        return _decode(json, tensors)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the description of a state ({type(error).__name__}: {error}).") from error


def _decode(json: Json, tensors: Mapping[str, Tensor]) -> Any:
    if "value" in json:
        return json["value"]
    if "tensor" in json:
        return tensors[json["tensor"]]
    if "array" in json:
        return tensors[json["array"]].numpy().astype(json["dtype"])
    if "counter" in json:
        return Counter({key: _decode(each, tensors) for key, each in json["counter"]})
    if "dict" in json:
        return {key: _decode(each, tensors) for key, each in json["dict"]}
    values = [_decode(each, tensors) for each in json["list" if "list" in json else "tuple"]]
    return values if "list" in json else tuple(values)


def _of_torch(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in a type that safetensors keeps and that holds all its values."""
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        return value.view(f"i{value.dtype.itemsize}") if value.dtype.itemsize == 8 else value.astype(np.int64)
    return np.ascontiguousarray(value)
