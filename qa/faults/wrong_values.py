"""Strategies of wrong values, by what an argument takes: each gives functions from the right value to a wrong one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

Change = Callable[[Any], Any]
Strategy = st.SearchStrategy[Change]

_JUNK: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "text": lambda: "wrong",
    "list": lambda: [1, "a"],
    "dict": lambda: {"a": 1},
    "object": object,
    "complex": lambda: 1 + 2j,
    "bool": lambda: True,
    "bytes": lambda: b"wrong",
    "type": lambda: int,
    "number": lambda: 0.5,
    "function": lambda: len,
    "array": lambda: np.array(["a", None], dtype=object),
}


def each(*makers: Callable[[], Any]) -> Strategy:
    """Values that do not depend on the right one, made anew each time."""
    return st.sampled_from(makers).map(lambda make: lambda _: make())


def values(strategy: st.SearchStrategy[Any]) -> Strategy:
    """Values of another strategy."""
    return strategy.map(lambda value: lambda _: value)


def changes(*functions: Change) -> Strategy:
    """Changes of the right value."""
    return st.sampled_from(functions)


def junk(*right: str) -> list[Strategy]:
    """A value of each type but those that are ``right``."""
    return [each(make) for kind, make in _JUNK.items() if kind not in right]


def count(minimum: int = 1, *, optional: bool = False, maximum: int | None = None) -> list[Strategy]:
    """What is no whole number of at least ``minimum``."""
    found = [
        *junk(*(["none"] if optional else [])),
        values(st.floats()),
        values(st.integers(max_value=minimum - 1)),
        each(lambda: np.float64(3.0), lambda: np.bool_(True), lambda: np.array([3, 4]), lambda: torch.ones(2)),
    ]
    return found if maximum is None else [*found, values(st.integers(min_value=maximum + 1))]


def seed(*, optional: bool = False, maximum: int = 2**64) -> list[Strategy]:
    """What seeds no generator."""
    return count(0, optional=optional, maximum=maximum)


def number(
    minimum: float = 0.0, *, exclusive: bool = False, optional: bool = False, maximum: float | None = None
) -> list[Strategy]:
    """What is no finite number of at least ``minimum``, and at most ``maximum``."""
    right = ["number", *(["none"] if optional else [])]
    found = [
        *junk(*right),
        values(st.floats(max_value=minimum, allow_nan=False, exclude_max=not exclusive)),
        each(lambda: math.nan, lambda: math.inf, lambda: -math.inf, lambda: np.float32("nan")),
        each(lambda: np.array([0.1, 0.2, -0.3]), lambda: torch.tensor([[0.1, 0.2]])),
    ]
    return found if maximum is None else [*found, values(st.floats(min_value=maximum, exclude_min=True))]


def share(*, optional: bool = False) -> list[Strategy]:
    """What is no number in (0, 1)."""
    return [*number(exclusive=True, optional=optional), values(st.floats(min_value=1))]


def flag(*, optional: bool = False) -> list[Strategy]:
    """What is no bool."""
    return [
        *junk("bool", *(["none"] if optional else [])),
        values(st.integers()),
        each(lambda: np.array([True, False])),
    ]


def choice(*names: Any, optional: bool = False) -> list[Strategy]:
    """What is none of ``names``."""
    return [
        *junk(*(["none"] if optional else [])),
        values(st.text().filter(lambda text: text not in names)),
        values(st.integers()),
        each(list, dict, lambda: math.nan, lambda: np.zeros(2)),
    ]


def text(*, optional: bool = False) -> list[Strategy]:
    """What is no text."""
    return [*junk("text", *(["none"] if optional else [])), values(st.integers())]


def line(*, optional: bool = False) -> list[Strategy]:
    """What is no line of text."""
    return [*text(optional=optional), each(lambda: "", lambda: "  ", lambda: "two\nlines")]


def path(*, optional: bool = False) -> list[Strategy]:
    """What is no path of something that exists."""
    nowhere = ["/dev/null/at all", "no such file", "a\0b", "x" * 5000]
    return [
        *junk("text", *(["none"] if optional else [])),
        values(st.integers()),
        values(st.sampled_from(nowhere)),
        values(st.text(alphabet="abc/.").map("nowhere/".__add__)),
    ]


def no_path(*, optional: bool = False) -> list[Strategy]:
    """What cannot be a path, for places that are made where they do not exist."""
    return [*junk("text", *(["none"] if optional else [])), values(st.integers()), each(lambda: "a\0b")]


def norm() -> list[Strategy]:
    """What is neither infinity nor 2."""
    return [*junk(), values(st.floats().filter(lambda n: n not in (2.0, math.inf))), values(st.integers(min_value=3))]


def classifier(*, optional: bool = False) -> list[Strategy]:
    """What is no ART classifier."""
    return [
        *junk(*(["none"] if optional else [])),
        each(lambda: nn.Linear(2, 2), lambda: nn.Linear, lambda: np.zeros(3), lambda: [None]),
    ]


def kind(*right: str) -> list[Strategy]:
    """What is of none of the types that are ``right``."""
    return [*junk(*right), *([] if "number" in right else [values(st.integers()), each(lambda: math.nan)])]


def _at(array: Any, place: int, value: float) -> Any:
    """A copy with one value changed."""
    changed = np.array(array, dtype=np.result_type(np.asarray(array).dtype, np.float32))
    changed.flat[place % changed.size] = value
    return changed


def _puts(numbers: Iterable[float] | st.SearchStrategy[float]) -> Strategy:
    """One value of an array or tensor replaced."""
    drawn = numbers if isinstance(numbers, st.SearchStrategy) else st.sampled_from(list(numbers))
    return st.tuples(st.integers(0, 10**6), drawn).map(lambda pair: lambda right: _at(right, *pair))


def images(*, optional: bool = False, high: float = 1.0) -> list[Strategy]:
    """What are no images of the right shape in [0, ``high``], from images ``(N, C, H, W)``."""
    return [
        *junk(*(["none"] if optional else [])),
        _puts([math.nan, math.inf, -math.inf]),
        _puts(st.floats(min_value=high * 1.01, max_value=1e30)),
        _puts(st.floats(min_value=-1e30, max_value=-0.01 * high)),
        changes(lambda x: x[:0], lambda x: x[0], lambda x: x[:, None], lambda x: x[..., :-1], lambda x: x[:, :, 1:]),
        changes(lambda x: x.reshape(-1), lambda x: x.reshape(len(x), -1), lambda x: np.concatenate([x, x], axis=1)),
        changes(lambda x: x.astype(object), lambda x: x.astype(complex), lambda x: x.astype(str)),
        changes(lambda x: [list(x[0].ravel()), [1.0]], lambda x: 255 * x + 2, lambda x: x.astype("datetime64[s]")),
    ]


def labels(nb_classes: int, *, optional: bool = False, soft: bool = True) -> list[Strategy]:
    """What are no labels of ``nb_classes`` classes, from indices ``(N,)``; with ``soft=False`` no soft ones either."""
    eye = np.eye(nb_classes)
    found = [
        *junk(*(["none"] if optional else [])),
        _puts(st.integers(min_value=nb_classes, max_value=2**40)),
        _puts(st.integers(min_value=-(2**40), max_value=-1)),
        _puts(st.floats(0.01, 0.99)),
        _puts([math.nan, math.inf, -math.inf]),
        changes(lambda y: y[:-1], lambda y: y[:0], lambda y: np.append(y, 0), lambda y: y[None], lambda y: y[0]),
        changes(lambda y: np.stack([y, y], axis=1)[:, :, None], lambda y: np.eye(nb_classes + 1)[y]),
        changes(lambda y: 2 * eye[y], lambda y: -eye[y], lambda y: 0 * eye[y], lambda y: eye[y] * math.nan),
        changes(lambda y: y.astype(object), lambda y: y.astype(str), lambda y: y.astype(complex), lambda y: y + 0.5),
    ]
    return found if soft else [*found, changes(lambda y: np.full((len(y), nb_classes), 1 / nb_classes))]


def indices(*, nb_classes: int | None = None) -> list[Strategy]:
    """What are no class indices ``(N,)``."""
    found = [
        *junk(),
        _puts(st.floats(0.01, 0.99)),
        _puts([math.nan, math.inf]),
        changes(lambda y: y[:0], lambda y: np.stack([y, y], axis=1), lambda y: y[0]),
        changes(lambda y: y.astype(object), lambda y: y.astype(str), lambda y: y.astype(complex)),
    ]
    if nb_classes is not None:
        found.append(_puts(st.integers(min_value=nb_classes, max_value=2**40)))
    return found


def _tensors(strategies: list[Strategy]) -> list[Strategy]:
    """The same changes of a tensor, where the changed array can be one."""

    def changed(change: Change) -> Change:
        def of_tensor(right: Any) -> Any:
            value = change(right.numpy().copy())
            fits = isinstance(value, np.ndarray) and value.dtype.kind in "fiuc"
            return torch.from_numpy(value.copy()) if fits else value

        return of_tensor

    return [strategy.map(changed) for strategy in strategies]


def image_tensor(**options: Any) -> list[Strategy]:
    """:func:`images`, of a tensor."""
    return _tensors(images(**options))


def label_tensor(nb_classes: int, *, optional: bool = False, soft: bool = True) -> list[Strategy]:
    """:func:`labels`, of a tensor."""
    return _tensors(labels(nb_classes, optional=optional, soft=soft))


def logits(*, alone: bool = False) -> list[Strategy]:
    """What are no logits ``(N, C)``, or, unless they are ``alone``, not as many classes as others, as tensor."""
    found = [
        *junk(),
        each(lambda: np.zeros((4, 4), dtype=np.float32), lambda: nn.Linear(2, 2)),
        changes(lambda z: z[:-1], lambda z: z[0], lambda z: z[None], lambda z: z[:, :1]),
        changes(lambda z: z.long(), lambda z: z.to(torch.complex64), lambda z: z > 0, lambda z: z.tolist()),
        changes(lambda z: z[:0], lambda z: z.reshape(-1), lambda z: z.mean()),
    ]
    return found if alone else [*found, changes(lambda z: torch.cat([z, z], dim=1), lambda z: z[:, :-1])]


def generator() -> list[Strategy]:
    """What is no generator of torch."""
    return [*junk("none"), each(lambda: np.random.default_rng(0), lambda: 3)]
