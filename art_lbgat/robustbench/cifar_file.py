"""The files of CIFAR, whose format is a pickle, read without calling or importing anything that they name.

The published files name ``_reconstruct``, ``ndarray``, ``dtype`` and ``encode``. What stands here in their place builds
arrays of numbers and nothing else: numpy's own would take over a forged dtype, and with it pointers out of the file.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 (the one place; what a file names is never looked up)
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NUMPY = frozenset({"numpy", "numpy.core.multiarray", "numpy._core.multiarray"})
_DTYPES = frozenset({"u1", "i1", "i4", "i8"})


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Images and labels of a file in CIFAR's own format.

    :param path: The file.
    :return: Images ``(N, 3, 32, 32)``, float32, in [0, 1]; labels ``(N,)``, int64.
    :raises ValueError: If it is damaged, of another format, or names anything but arrays of numbers; it is named.
    """
    try:
        batch = _Reader(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        data = np.asarray(_plain(batch["data"]), dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(_plain(batch["labels" if "labels" in batch else "fine_labels"]), dtype=np.int64)
        if len(data) == 0 or labels.shape != (len(data),):
            raise ValueError(f"it holds {len(data)} images and labels of shape {labels.shape}")
    except Exception as error:  # a damaged pickle raises many types
        raise ValueError(f"data_dir: {path} is damaged or no file of CIFAR ({error}).") from error
    return torch.from_numpy(data).float().div(255), torch.from_numpy(labels)


class _StandIn:
    """In the place of a callable: makes what it is told to, and cannot be given a state."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise ValueError("it gives a state to a function")


class _Dtype:
    """A type by its code; byte order and flags that a file claims are not taken over."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in _DTYPES:
            raise ValueError(f"it holds an array of {code!r}, expected one of {sorted(_DTYPES)}")
        self.dtype = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise ValueError(f"it holds an array of byte order {state[1]!r}")


class _Array:
    """An array of numbers."""

    def __init__(self, *_: Any) -> None:
        self.value: NDArray[Any] = np.zeros(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        data = content if isinstance(content, bytes) else content.encode("latin1")  # text where Python 2 wrote it
        self.value = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C").copy()


def _bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 keeps bytes."""
    if encoding != "latin1":
        raise ValueError(f"it holds bytes as {encoding!r}")
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """Reads arrays, lists and text; anything else in a file could run code and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of numpy, which is not looked up."""
        makers: dict[str, Callable[..., Any]] = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Dtype}
        if module in _NUMPY and name in makers:
            return _StandIn(makers[name])
        if (module, name) == ("_codecs", "encode"):
            return _StandIn(_bytes)
        raise ValueError(f"it holds {module}.{name}, which could run code")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value
