"""The plane through three images, and what each model says on it: the picture that explains the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.checks import as_array, check_count, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.diagnostics.subjects import (
    BATCH_SIZE,
    Models,
    inside_bounds,
    make_images,
    make_logits,
    make_views,
    to_tensor,
)

_FLAT = 1e-6  # height of the triangle over its base, below which it is a line


class Plane(NamedTuple):
    """``x(u, v) = origin + u e_1 + v e_2`` with orthonormal ``e_1``, ``e_2``.

    :param origin: An image, float64, of shape ``S``.
    :param axes: ``e_1`` and ``e_2``, float64 ``(2, *S)``.
    :param coordinates: ``(u, v)`` of the three images, float64 ``(3, 2)``.
    """

    origin: Tensor
    axes: Tensor
    coordinates: Tensor

    def points(self, uv: Tensor) -> Tensor:
        """The images at coordinates ``(n, 2)``, float64 ``(n, *S)``.

        :param uv: Coordinates in the plane.
        """
        flat = self.origin.flatten() + uv @ self.axes.flatten(1)
        return flat.reshape(len(uv), *self.origin.shape)


def plane_through(anchors: Any) -> Plane:
    """``e_1 = (b - a) / ||b - a||``, ``e_2`` along ``(c - a) - <c - a, e_1> e_1`` (Gram-Schmidt), origin ``a``.

    So ``a`` is at (0, 0), ``b`` at (||b - a||, 0) and ``c`` above the first axis; distances in the plane are L2
    distances between images.

    :param anchors: Three images, ``(3, *S)``.
    :raises ValueError: Not three images, NaN or Inf, or images that lie on a line.
    """
    array = as_array(anchors, "anchors").astype(np.float64)
    if array.ndim < 2 or len(array) != 3:
        raise ValueError(f"anchors: expected three images (3, ...), got an array of shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError("anchors: expected finite values, got NaN or Inf.")
    with torch.inference_mode(False):
        a, b, c = torch.from_numpy(array).flatten(1)
        base = torch.linalg.vector_norm(b - a)
        first = (b - a) / base
        along = (c - a) @ first
        rest = (c - a) - along * first
        height = torch.linalg.vector_norm(rest)
        if not (base > 0 and height > _FLAT * base):
            raise ValueError("anchors: expected three images that are not on a line, since they span no plane.")
        second = rest / height
        second = second - (second @ first) * first  # once more: the first pass loses digits when the angle is small
        axes = torch.stack([first, second / torch.linalg.vector_norm(second)]).reshape(2, *array.shape[1:])
        zero = torch.zeros_like(base)
        coordinates = torch.stack([zero, zero, base, zero, along, height]).reshape(3, 2)
        return Plane(torch.from_numpy(array[0].copy()), axes, coordinates)


def decision_slices(
    models: Models,
    anchors: Any,
    *,
    names: Sequence[str] = ("image 1", "image 2", "image 3"),
    resolution: int = 100,
    border: float = 0.25,
    batch_size: int = BATCH_SIZE,
) -> pd.DataFrame:
    """``argmax M(x(u, v))`` on a square grid of the plane ``x(u, v)`` through three images, for each model.

    Nothing is clipped, since a clipped slice is no plane: ``inside`` marks the points that are valid images.

    :param models: One classifier, or several by name: the guide, the robust model, the baseline.
    :param anchors: Three raw images, ``(3, *input_shape)``: of three classes, or an image, its adversarial one and an
        image of another class.
    :param names: What they are called in the plot.
    :param resolution: Points along the longer side.
    :param border: What is added on each side, as a share of the longer side of the box around the three images.
    :param batch_size: Points per pass.
    :return: A row per model and grid point: ``model``, ``u``, ``v`` (L2 units of the inputs), ``predicted``,
        ``confidence`` (``max softmax``, in (0, 1]), ``margin`` (largest less second largest logit), ``inside``.
        ``attrs["anchors"]`` holds ``(u, v)`` of each image by name.
    :raises TypeError: If a classifier is no ``PyTorchClassifier``.
    :raises ValueError: Images that span no plane or are no inputs of every model, names that are not three different
        ones, numbers out of range, NaN or Inf in logits.
    """
    views = make_views(models)
    plane = plane_through(anchors)
    make_images(anchors, views, "anchors")
    check_count(resolution, "resolution", minimum=2)
    check_number(border, "border")
    check_count(batch_size, "batch_size")
    if len(names) != 3 or len(set(names)) != 3:
        raise ValueError(f"names: expected three different names, got {list(names)}.")
    uv = grid(plane.coordinates, resolution, border)
    table = pd.concat([_look(name, view, plane, uv, batch_size) for name, view in views.items()], ignore_index=True)
    table.attrs["anchors"] = {name: tuple(point) for name, point in zip(names, plane.coordinates.tolist(), strict=True)}
    return table


def grid(coordinates: Tensor, resolution: int, border: float) -> Tensor:
    """Equally spaced points of the box around ``coordinates``, the same spacing on both axes, row by row from below.

    :param coordinates: Float64 ``(k, 2)``.
    :param resolution: Points along the longer side.
    :param border: What is added on each side, as a share of the longer side.
    :return: Float64 ``(n, 2)``.
    """
    low, high = coordinates.amin(dim=0), coordinates.amax(dim=0)
    longer = float((high - low).max())
    low, high = low - border * longer, high + border * longer
    spacing = float((high - low).max()) / (resolution - 1)
    counts = (_count(float(side), spacing) for side in high - low)
    u, v = (low[i] + spacing * torch.arange(n, dtype=torch.float64) for i, n in enumerate(counts))
    return torch.cartesian_prod(v, u).flip(dims=(1,))


def _count(length: float, spacing: float) -> int:
    return max(2, round(length / spacing) + 1)


def _look(name: str, view: TensorView, plane: Plane, uv: Tensor, batch_size: int) -> pd.DataFrame:
    predicted: list[NDArray[Any]] = []
    confidence: list[NDArray[Any]] = []
    margin: list[NDArray[Any]] = []
    inside: list[NDArray[Any]] = []
    for chunk in torch.split(uv, batch_size):  # all points at once may not fit into memory
        points = plane.points(chunk)
        logits = make_logits(view, to_tensor(points), batch_size)
        largest, second = torch.topk(logits, 2, dim=1)[0].unbind(dim=1)
        predicted.append(logits.argmax(dim=1).numpy())
        confidence.append(torch.softmax(logits, dim=1).amax(dim=1).numpy())
        margin.append((largest - second).numpy())
        inside.append(inside_bounds(points, view))
    columns = {"predicted": predicted, "confidence": confidence, "margin": margin, "inside": inside}
    found = {key: np.concatenate(value) for key, value in columns.items()}
    return pd.DataFrame({"model": name, "u": uv[:, 0].numpy(), "v": uv[:, 1].numpy(), **found})
