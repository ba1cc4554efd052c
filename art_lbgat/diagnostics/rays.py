"""Rays from images: the directions that mean something, and the first change of class along each."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.checks import as_array, check_count
from art_lbgat.classifier import TensorView
from art_lbgat.diagnostics.subjects import make_logits, to_tensor

_ROWS = 64  # images whose distances to all others are held at once


class Search(NamedTuple):
    """How a boundary is looked for.

    :param far: The largest distance.
    :param steps: Equal steps up to ``far``.
    :param tolerance: The width at which bisection stops.
    :param batch_size: Images per pass.
    """

    far: float
    steps: int
    tolerance: float
    batch_size: int


class Crossing(NamedTuple):
    """The first change of class along each ray.

    :param start: The class at the image, int64 ``(N,)``.
    :param beyond: The class behind the boundary, int64 ``(N,)``, -1 where none was found.
    :param distance: Float64 ``(N,)``; infinite where none was found, NaN for a zero direction.
    """

    start: Tensor
    beyond: Tensor
    distance: Tensor


def directions(x: Any, y: Any, x_adv: Any = None, *, seed: int | None = None) -> dict[str, NDArray[np.float64]]:
    """``{"other class": z(x) - x, "adversarial": x_adv - x, "random": N(0, 1)}``: directions for the boundaries.

    ``z(x)`` is the image among ``x`` with another label that is nearest in L2: a direction that stays among natural
    images.

    :param x: Raw images, ``(N, ...)``, of at least two classes.
    :param y: Class indices, ``(N,)``.
    :param x_adv: Adversarial images, ``(N, ...)``, or None for no such direction. Of which model they are is yours to
        choose; along one model's directions the others look farther away than they are.
    :param seed: Seed of the random direction, or None for no such direction.
    :return: Float64 arrays of the shape of ``x``, not scaled.
    :raises ValueError: Fewer than two classes, or shapes that do not match.
    """
    images, labels = (as_array(value, name) for value, name in ((x, "x"), (y, "y")))
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"y: expected class indices of shape (N,), one per image of x, got {labels.shape} for x of {images.shape}."
        )
    if len(np.unique(labels)) < 2:
        raise ValueError("y: expected at least two classes, since a direction leads to an image of another class.")
    images = images.astype(np.float64)
    found = {"other class": images[nearest_of_another_class(images, labels)] - images}
    if x_adv is not None:
        adversarial = as_array(x_adv, "x_adv")
        if adversarial.shape != images.shape:
            raise ValueError(f"x_adv: expected the shape of x, {images.shape}, got {adversarial.shape}.")
        found["adversarial"] = adversarial - images
    if seed is not None:
        drawn = np.random.default_rng(check_count(seed, "seed", minimum=0)).standard_normal(images.shape)
        found["random"] = drawn
    return found


def nearest_of_another_class(images: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.int64]:
    """``argmin {||x_j - x_i||_2 : y_j != y_i}`` for each ``i``, the first of several; int64 ``(N,)``.

    :param images: Images as rows, ``(N, D)``.
    :param labels: Their classes, ``(N,)``.
    """
    flat = torch.from_numpy(images.reshape(len(images), -1))
    target = torch.from_numpy(labels.astype(np.int64))
    found = []
    for rows in torch.split(torch.arange(len(flat)), _ROWS):
        distance = torch.cdist(flat[rows], flat, compute_mode="donot_use_mm_for_euclid_dist")
        distance[target[rows, None] == target[None]] = torch.inf
        found.append(distance.argmin(dim=1))
    return torch.cat(found).numpy()


def unit_directions(value: Any, x: Tensor, norm: float, name: str) -> Tensor:
    """``d / ||d||`` for each image, float64; zero where ``d`` is zero.

    :param value: Array of the shape of ``x``.
    :param x: The images, ``(N, ...)``.
    :param norm: ``inf`` or 2.
    :param name: The name of the argument.
    :raises ValueError: Another shape, or NaN or Inf.
    """
    array = as_array(value, name).astype(np.float64)
    if array.shape != tuple(x.shape):
        raise ValueError(f"{name}: expected the shape of x, {tuple(x.shape)}, got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or Inf.")
    with torch.inference_mode(False):
        direction = torch.from_numpy(array)
        length = torch.linalg.vector_norm(direction.flatten(1), ord=norm, dim=1)
        length[length == 0] = 1.0
        return torch.div(direction, length.reshape(-1, *[1] * (x.ndim - 1)))


def first_crossing(view: TensorView, x: Tensor, unit: Tensor, search: Search) -> Crossing:
    """``min {t : argmax M(x + t d) != argmax M(x)}`` by equal steps and bisection.

    :param view: The model.
    :param x: Images, float32 ``(N, ...)``.
    :param unit: Directions of length 1 (or zero), float64 ``(N, ...)``.
    :param search: How to look.
    """
    start = make_logits(view, x, search.batch_size).argmax(dim=1)
    zero = (unit == 0).flatten(1).all(dim=1)
    beyond = torch.full_like(start, -1)
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), torch.inf, dtype=torch.float64)

    def _classes(rows: Tensor, distance: Tensor) -> Tensor:
        points = x[rows].double() + unit[rows] * distance.reshape(-1, *[1] * (x.ndim - 1))
        return make_logits(view, to_tensor(points), search.batch_size).argmax(dim=1)

    open_rows = (~zero).nonzero()[:, 0]
    for step in range(1, search.steps + 1):
        if not len(open_rows):
            break
        at = torch.full((len(open_rows),), search.far * step / search.steps, dtype=torch.float64)
        found = _classes(open_rows, at)
        changed = found != start[open_rows]
        high[open_rows[changed]], beyond[open_rows[changed]] = at[changed], found[changed]
        low[open_rows[~changed]] = at[~changed]
        open_rows = open_rows[~changed]
    rows = (beyond >= 0).nonzero()[:, 0]
    halvings = math.ceil(math.log2(max(1.0, search.far / search.steps / search.tolerance)))
    for _ in range(halvings if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        found = _classes(rows, middle)
        changed = found != start[rows]
        high[rows[changed]], beyond[rows[changed]] = middle[changed], found[changed]
        low[rows[~changed]] = middle[~changed]
    high[zero] = torch.nan
    return Crossing(start, beyond, high)
