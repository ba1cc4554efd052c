"""Checks of what users pass: each raises one error that names the argument, what came and what was expected."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable
from numbers import Integral, Number, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 22  # elements looked at together, so that checks of a large array need little memory
_T = TypeVar("_T")


class KindError(TypeError, ValueError):
    """A value of the wrong type, for which ART raises ``ValueError``."""


class UnsupportedError(NotImplementedError, ValueError):
    """A value that ART has and this package has not, for which ART raises ``NotImplementedError``."""


def as_array(value: Any, name: str) -> NDArray[Any]:
    """``value`` as a numeric numpy array, without a copy where it is one."""
    if np.ma.is_masked(value):  # numpy would take what is under the mask
        raise ValueError(f"{name}: expected an array without masked values, got some.")
    try:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__} ({error}).") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of numbers, got {type(value).__name__} of dtype {array.dtype}.")
    return array


def check_inputs(x: Any, classifier: Any, name: str = "x", *, finite: bool = True) -> NDArray[Any]:
    """Raw inputs ``(N, *input_shape)`` in the range that an ART classifier declares: ``x`` itself, in its own dtype.

    What lies outside by rounding (1e-5 of the bounds, or one place of a shorter dtype) is clipped, in a float32 copy.
    Without ``finite``, NaN and infinities are let through.
    """
    array = as_array(x, name)
    shape = tuple(classifier.input_shape)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{name}: expected at least one sample of shape {shape}, got an array of shape {array.shape}.")
    if array.shape[1:] != shape:
        raise ValueError(f"{name}: expected shape (N, {', '.join(map(str, shape))}), got {array.shape}.")
    rows, floats, given = max(1, _CHUNK // max(1, array[0].size)), array.dtype.kind == "f", array
    low, high = np.asarray((-np.inf, np.inf) if classifier.clip_values is None else classifier.clip_values, np.float32)
    rounding = max(1e-5, np.finfo(array.dtype).eps if floats else 0.0) * np.maximum(np.abs(low), np.abs(high))
    for first in range(0, len(array), rows):
        with np.errstate(over="ignore"):
            chunk = given[first : first + rows].astype(np.float32, copy=False)
        known = np.isfinite(chunk) if floats else np.True_
        if finite and not known.all():
            sample = first + int(np.argwhere(~known)[0][0])
            raise ValueError(f"{name}: expected finite values, got NaN or Inf in sample {sample}.")
        outside = ((chunk < low) | (chunk > high)) & known
        if outside.any():
            clipped = np.clip(chunk, low, high)
            if (np.abs(chunk - clipped) > rounding)[outside].any():
                raise ValueError(
                    f"{name}: values lie in [{chunk.min():.7g}, {chunk.max():.7g}], outside clip_values "
                    f"[{np.min(low):g}, {np.max(high):g}] of the classifier; expected raw inputs in its own range."
                )
            array = given.astype(np.float32) if array is given else array
            array[first : first + rows] = np.where(outside, clipped, chunk)
    return array


def check_labels(y: Any, nb_classes: int, name: str = "y", length: int | None = None) -> NDArray[Any]:
    """A new array of labels: int64 indices ``(N,)`` if they are hard, else float32 probabilities ``(N, C)``."""
    array = as_array(y, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != nb_classes):
        raise ValueError(f"{name}: expected indices (N,) or rows (N, {nb_classes}), got shape {array.shape}.")
    if length is not None and len(array) != length:
        raise ValueError(f"{name}: expected {length} labels, one per sample of x, got {len(array)}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or Inf.")
    if array.ndim == 1:
        indices = array.astype(np.int64)
        if (indices != array).any():
            raise ValueError(f"{name}: expected whole class indices, got {array[indices != array][0]:g}.")
        if len(indices) and (indices.min() < 0 or indices.max() >= nb_classes):
            got = f"values in [{indices.min()}, {indices.max()}]"
            raise ValueError(f"{name}: expected class indices in [0, {nb_classes - 1}], got {got}.")
        return indices
    sums = array.sum(axis=1)
    if (array < 0).any() or (np.abs(sums - 1) > 1e-3).any():
        raise ValueError(
            f"{name}: expected rows that are one-hot or probabilities (non-negative, sum 1), got values in "
            f"[{array.min():g}, {array.max():g}] and row sums in [{sums.min():g}, {sums.max():g}]."
        )
    if ((array == 0) | (array == 1)).all():
        return np.asarray(array.argmax(axis=1), dtype=np.int64)
    return np.asarray(array, dtype=np.float32).copy()


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise KindError(f"{name}: expected a whole number >= {minimum}, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name}: expected a whole number >= {minimum}, got {value}.")
    return int(value)


def check_number(value: Any, name: str, minimum: float = 0.0, exclusive: bool = False) -> float:
    """A finite number of at least (or above) ``minimum``."""
    expected = f"a finite number {'>' if exclusive else '>='} {minimum:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise KindError(f"{name}: expected {expected}, got {value!r}.")
    number = float(value)
    if not math.isfinite(number) or number < minimum or (exclusive and number == minimum):
        raise ValueError(f"{name}: expected {expected}, got {value}.")
    return number


def check_choice(value: Any, name: str, choices: Iterable[Any]) -> Any:
    """``value`` if it is one of ``choices``; the error names the nearest one."""
    allowed = list(choices)
    plain = value is None or isinstance(value, (str, Number))  # an array would be compared value by value
    if not plain or value not in allowed:
        near = difflib.get_close_matches(str(value), [str(c) for c in allowed], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name}: expected one of {allowed}, got {value!r}{hint}")
    return value


def check_name(value: Any, name: str) -> str:
    """A name that becomes one part of a path and can lead nowhere else: no separator, ``..``, NUL or other odd sign."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected text, got {value!r}.")
    if not re.fullmatch(r"[\w+-][\w.+-]{0,99}", value):
        allowed = "letters, digits and . _ + - only, at most 100 and no dot in front, as files are named by it"
        raise ValueError(f"{name}: expected {allowed}; got {value!r}.")
    return value


def check_seed(value: Any, name: str = "seed", maximum: int = 2**62) -> int:
    """A whole number that seeds generators: from 0 to ``maximum``, which is 2**32 - 1 for those of numpy alone."""
    if check_count(value, name, minimum=0) > maximum:
        raise ValueError(f"{name}: expected a whole number from 0 to {maximum}, got {value}.")
    return int(value)


def check_share(value: Any, name: str) -> float:
    """A number in (0, 1)."""
    if check_number(value, name, exclusive=True) >= 1:
        raise ValueError(f"{name}: expected a number in (0, 1), got {value}.")
    return float(value)


def check_optional(check: Callable[..., _T], value: Any, name: str, **limits: Any) -> _T | None:
    """None, or what ``check`` makes of the value."""
    return None if value is None else check(value, name, **limits)


def check_flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise KindError(f"{name}: expected a bool, got {value!r}.")
    return value


def check_text(value: Any, name: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a text, got {value!r}.")
    return value


def check_kind(value: Any, name: str, kind: type[_T]) -> _T:
    """An object of one type."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"{name}: expected {article} {kind.__name__}, got {type(value).__name__}.")
    return value


def check_path(value: Any, name: str) -> Path:
    """A path, whether there is something or not."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{name}: expected a path, got {value!r}.")
    if os.fspath(value) == "" or "\0" in os.fspath(value):
        raise ValueError(f"{name}: expected a path, got {value!r}.")
    return Path(value)


def check_utf8(value: Any, name: str) -> str:
    """A name that can be written down, as files of other systems may have others."""
    if re.search("[\udc80-\udcff]", str(value)):
        raise ValueError(f"{name}: expected names in UTF-8, got {os.fsencode(value)!r}.")
    return str(value)


def check_indices(y: Any, name: str = "y") -> NDArray[np.int64]:
    """Class indices ``(N,)`` of any number of classes, as int64."""
    array = as_array(y, name)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name}: expected class indices (N,), at least one, got shape {array.shape}.")
    if not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise ValueError(f"{name}: expected whole class indices, got values such as {array[:5].tolist()}.")
    return array.astype(np.int64)


def check_norm(norm: Any, finite: tuple[int, ...] = (2,)) -> float:
    """``norm`` as ``math.inf`` or one of the finite ones; ART's spelling ``"inf"`` is taken too."""
    if isinstance(norm, (str, Real)) and norm in ("inf", math.inf):
        return math.inf
    if not isinstance(norm, bool) and isinstance(norm, Real) and norm in finite:
        return float(norm)
    raise ValueError(f"norm: expected np.inf, 'inf' or {' or '.join(map(str, finite))}, got {norm!r}.")
