"""Where decision boundaries are: along rays from images, between models, and on the plane through three images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.attacks.projections import whole_range
from art_lbgat.checks import as_array, check_count, check_norm, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.diagnostics.agreement import BATCH_SIZE, Models, make_images, make_logits, make_views
from art_lbgat.evaluation.results import check_columns, norm_name
from art_lbgat.evaluation.subject import to_tensor

_ROWS = 64  # images whose distances to all others are held at once
_FLAT = 1e-6  # smaller side of a triangle over the larger (singular values), below which it is a line
_INSIDE = 1e-6  # of the input range; float32 rounding of a point on the border is below it


def directions(x: Any, y: Any, x_adv: Any = None, *, seed: int | None = None) -> dict[str, NDArray[np.float64]]:
    """``{"other class": z(x) - x, "adversarial": x_adv - x, "random": N(0, 1)}``: directions for the boundaries.

    ``z(x)`` is the image among ``x`` with another label that is nearest in L2: a direction that stays among natural
    images. Along adversarial directions of one model the boundaries of others look farther away than they are.

    :param x: Raw images, ``(N, ...)``, of at least two classes.
    :param y: Class indices, ``(N,)``.
    :param x_adv: Adversarial images of any model, ``(N, ...)``, or None for no such direction.
    :param seed: Seed of the random direction, or None for no such direction.
    :return: Float64 arrays of the shape of ``x``, not scaled.
    """
    images, labels = as_array(x, "x"), as_array(y, "y")
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        expected = "expected class indices of shape (N,), one per image of x"
        raise ValueError(f"y: {expected}, got {labels.shape} for x of {images.shape}.")
    if len(np.unique(labels)) < 2:
        raise ValueError("y: expected at least two classes, since a direction leads to an image of another class.")
    images = images.astype(np.float64)
    found = {"other class": images[_nearest_of_another_class(images, labels)] - images}
    if x_adv is not None:
        adversarial = as_array(x_adv, "x_adv")
        if adversarial.shape != images.shape:
            raise ValueError(f"x_adv: expected the shape of x, {images.shape}, got {adversarial.shape}.")
        found["adversarial"] = adversarial - images
    if seed is not None:
        found["random"] = np.random.default_rng(check_count(seed, "seed", 0)).standard_normal(images.shape)
    return found


def boundary_distance(
    models: Models,
    x: Any,
    directions: Any,
    *,
    norm: float | str = math.inf,
    max_distance: float | None = None,
    steps: int = 64,
    tolerance: float = 1e-4,
    batch_size: int = BATCH_SIZE,
) -> pd.DataFrame:
    """``t = min {t > 0 : argmax M(x + t d) != argmax M(x)}``, ``||d|| = 1``: the boundary along a direction.

    Each model is measured from its own class of ``x``, right or wrong. The class is looked at in ``steps`` equal
    steps, and the first that differs is narrowed by bisection; one that comes and goes within a step is not seen.
    Nothing is clipped, which would bend the ray: ``inside`` says which boundaries lie among valid images.

    :param models: One classifier, or several by name.
    :param x: Raw images, ``(N, *input_shape)``.
    :param directions: An array of the shape of ``x`` and any length, or several by name as of :func:`directions`.
    :param norm: ``np.inf`` or 2: what ``distance`` is measured in.
    :param max_distance: How far to look, in input units; None is the largest distance there is in ``clip_values``.
    :param steps: Steps up to ``max_distance``.
    :param tolerance: Where bisection stops, as a share of ``max_distance``.
    :param batch_size: Images per pass.
    :return: A row per model, direction and image: ``model``, ``direction``, ``sample``, ``predicted`` (at ``x``),
        ``beyond`` (the class behind the boundary, -1 if none was found), ``distance`` in input units (infinite if no
        boundary was found, NaN for a zero direction), ``inside``. ``attrs`` holds ``norm`` and ``max_distance``.
    """
    views = make_views(models)
    images = make_images(x, views)
    norm, first = check_norm(norm), next(iter(views.values()))
    if max_distance is not None:
        far = check_number(max_distance, "max_distance", exclusive=True)
    elif not math.isfinite(far := whole_range(first, norm)):
        raise ValueError(f"max_distance: expected a number > 0, since {first.name} has no clip_values, got None.")
    check_count(steps, "steps")
    width = check_number(tolerance, "tolerance", exclusive=True) * far
    given = directions if isinstance(directions, Mapping) else {"given": directions}
    if not given:
        raise ValueError("directions: expected at least one direction, got an empty mapping.")
    units = {str(key): _unit_directions(each, images, norm, f"directions[{key!r}]") for key, each in given.items()}
    parts = []
    for (name, view), (direction, unit) in itertools.product(views.items(), units.items()):
        start, beyond, distance = _first_crossing(view, images, unit, far, steps, width, batch_size)
        crossing = _along(images, unit, torch.nan_to_num(distance, nan=0.0, posinf=0.0))
        inside = _inside_bounds(crossing, view) & (beyond >= 0).numpy()
        columns = {"model": name, "direction": direction, "sample": range(len(images)), "predicted": start.numpy(),
                   "beyond": beyond.numpy(), "distance": distance.numpy(), "inside": inside}  # fmt: skip
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    table.attrs.update(norm=norm_name(norm), max_distance=far)
    return table


def boundary_gap(distances: pd.DataFrame) -> pd.DataFrame:
    """``gap = t_second - t_first`` along the same ray: how far apart the boundaries of two models are.

    :param distances: The table of :func:`boundary_distance` of at least two models.
    :return: A row per pair of models and direction: ``first``, ``second``, ``direction``; ``n``, the images from which
        both boundaries were found; ``mean_distance`` (``mean |gap|``), ``mean_gap`` and ``median_gap`` over these.
    """
    check_columns(distances, "distances", "boundary_distance", ("model", "direction", "sample", "distance"))
    names = list(dict.fromkeys(distances["model"]))
    if len(names) < 2:
        raise ValueError(f"distances: expected at least two models, got {names}.")
    rows = []
    for direction, part in distances.groupby("direction", sort=False):
        wide = part.pivot_table(index="sample", columns="model", values="distance", dropna=False)
        for first, second in itertools.combinations(names, 2):
            both = np.isfinite(wide[first]) & np.isfinite(wide[second])
            gap = (wide[second] - wide[first])[both]
            pair = {"first": first, "second": second, "direction": direction, "n": len(gap)}
            means = {"mean_distance": gap.abs().mean(), "mean_gap": gap.mean(), "median_gap": gap.median()}
            rows.append({**pair, **means})
    table = pd.DataFrame(rows)
    table.attrs.update(distances.attrs)
    return table


def boundary_shift(
    guide_after: PyTorchClassifier, guide_natural: PyTorchClassifier, x: Any, directions: Any, **options: Any
) -> pd.DataFrame:
    """``shift = t_after - t_before`` along the same ray: positive where the boundary moved away from the image.

    :param guide_after: The guide after LBGAT.
    :param guide_natural: The same network trained on natural images alone.
    :param x: Raw images, ``(N, *input_shape)``.
    :param directions: As :func:`boundary_distance`, whose errors and ``attrs`` these are too.
    :param options: ``norm``, ``max_distance``, ``steps``, ``tolerance``, ``batch_size`` of :func:`boundary_distance`.
    :return: A row per direction and image: ``direction``, ``sample``, ``before``, ``after``, ``shift`` in input units
        (infinite where only one boundary was found, NaN where none was), ``same`` (whether both classify ``x`` alike).
    """
    models = {"after": guide_after, "before": guide_natural}
    table = boundary_distance(models, x, directions, **options)
    after, before = (table[table["model"] == name].reset_index(drop=True) for name in models)
    shifts = after[["direction", "sample"]].assign(before=before["distance"], after=after["distance"])
    with np.errstate(invalid="ignore"):  # inf - inf
        shifts["shift"] = shifts["after"] - shifts["before"]
    shifts["same"] = after["predicted"] == before["predicted"]
    shifts.attrs.update(table.attrs)
    return shifts


def decision_slices(
    models: Models,
    anchors: Any,
    *,
    names: Sequence[str] = ("image 1", "image 2", "image 3"),
    resolution: int = 100,
    border: float = 0.25,
    batch_size: int = BATCH_SIZE,
) -> pd.DataFrame:
    """``argmax M(x(u, v))`` on a square grid of the plane ``x(u, v) = a + u e_1 + v e_2`` through three images.

    ``e_1 = (b - a) / ||b - a||``, ``e_2`` along ``(c - a) - <c - a, e_1> e_1`` (Gram-Schmidt): distances in the plane
    are L2 distances between images. Nothing is clipped: ``inside`` marks the points that are valid images.

    :param models: One classifier, or several by name.
    :param anchors: Three raw images ``a``, ``b``, ``c``, ``(3, *input_shape)``, that are not on a line.
    :param names: What they are called in the plot.
    :param resolution: Points along the longer side.
    :param border: What is added on each side, as a share of the longer side of the box around the three images.
    :param batch_size: Points per pass.
    :return: A row per model and grid point: ``model``, ``u``, ``v`` (L2 units of the inputs), ``predicted``,
        ``confidence`` (``max softmax``), ``margin`` (largest less second largest logit), ``inside``.
        ``attrs["anchors"]`` holds ``(u, v)`` of each image by name.
    """
    views = make_views(models)
    origin, axes, corners = plane_through(anchors)
    make_images(anchors, views, "anchors")
    check_count(resolution, "resolution", minimum=2)
    check_number(border, "border")
    check_count(batch_size, "batch_size")
    if len(names) != 3 or len(set(names)) != 3:
        raise ValueError(f"names: expected three different names, got {list(names)}.")
    uv = _grid(corners, resolution, border)
    parts = []
    for name, view in views.items():
        for chunk in torch.split(uv, batch_size):  # all points at once may not fit into memory
            points = (origin + chunk @ axes).reshape(len(chunk), *view.classifier.input_shape)
            logits = make_logits(view, to_tensor(points), batch_size)
            largest, second = torch.topk(logits, 2, dim=1)[0].unbind(dim=1)
            confidence = torch.softmax(logits, dim=1).amax(dim=1).numpy()
            columns = {"model": name, "u": chunk[:, 0].numpy(), "v": chunk[:, 1].numpy(),
                       "predicted": logits.argmax(dim=1).numpy(), "confidence": confidence,
                       "margin": (largest - second).numpy(), "inside": _inside_bounds(points, view)}  # fmt: skip
            parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    table.attrs["anchors"] = {name: tuple(point) for name, point in zip(names, corners.tolist(), strict=True)}
    return table


def plane_through(anchors: Any) -> tuple[Tensor, Tensor, Tensor]:
    """``a``, ``(e_1, e_2)`` and ``(u, v)`` of the three images of :func:`decision_slices`, float64, images as rows."""
    array = _finite(anchors, "anchors")
    if array.ndim < 2 or len(array) != 3:
        raise ValueError(f"anchors: expected three images (3, ...), got an array of shape {array.shape}.")
    with torch.inference_mode(False):
        images = torch.from_numpy(array).flatten(1)
        edges = (images[1:] - images[0]).T
        if torch.linalg.matrix_rank(edges, rtol=_FLAT) < 2:
            raise ValueError("anchors: expected three images that are not on a line, since they span no plane.")
        axes, sides = torch.linalg.qr(edges)  # Gram-Schmidt, but for the signs
        signs = sides.diagonal().sign()
        corners = torch.cat([torch.zeros(1, 2), (signs[:, None] * sides).T]) + 0.0  # no -0
        return images[0], (axes * signs).T, corners


def _grid(corners: Tensor, resolution: int, border: float) -> Tensor:
    """Equally spaced points of the box around the corners, row by row from below, float64 ``(n, 2)``."""
    low, high = corners.amin(dim=0), corners.amax(dim=0)
    margin = border * (high - low).max()
    low, high = low - margin, high + margin
    spacing = float((high - low).max()) / (resolution - 1)
    counts = [max(2, round(float(side) / spacing) + 1) for side in high - low]
    u, v = (low[i] + spacing * torch.arange(n, dtype=torch.float64) for i, n in enumerate(counts))
    return torch.cartesian_prod(v, u).flip(dims=(1,))


def _nearest_of_another_class(images: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.int64]:
    """``argmin {||x_j - x_i||_2 : y_j != y_i}`` for each ``i``, the first of several."""
    flat = torch.from_numpy(images.reshape(len(images), -1))
    target = torch.from_numpy(labels.astype(np.int64))
    found = []
    for rows in torch.split(torch.arange(len(flat)), _ROWS):
        distance = torch.cdist(flat[rows], flat, compute_mode="donot_use_mm_for_euclid_dist")
        distance[target[rows, None] == target[None]] = torch.inf
        found.append(distance.argmin(dim=1))
    return torch.cat(found).numpy()


def _unit_directions(value: Any, x: Tensor, norm: float, name: str) -> Tensor:
    """``d / ||d||`` for each image, float64; zero where ``d`` is zero."""
    array = _finite(value, name)
    if array.shape != tuple(x.shape):
        raise ValueError(f"{name}: expected the shape of x, {tuple(x.shape)}, got {array.shape}.")
    with torch.inference_mode(False):
        direction = torch.from_numpy(array)
        length = torch.linalg.vector_norm(direction.flatten(1), ord=norm, dim=1)
        length[length == 0] = 1.0
        return torch.div(direction, length.reshape(-1, *[1] * (x.ndim - 1)))


def _finite(value: Any, name: str) -> NDArray[np.float64]:
    array = as_array(value, name).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or Inf.")
    return array


def _along(x: Tensor, unit: Tensor, distance: Tensor) -> Tensor:
    return x.double() + unit * distance.reshape(-1, *[1] * (x.ndim - 1))


def _first_crossing(
    view: TensorView, x: Tensor, unit: Tensor, far: float, steps: int, width: float, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The class at ``x``, the class behind the boundary (-1: none found) and the distance, by steps and bisection."""
    start = make_logits(view, x, batch_size).argmax(dim=1)
    zero = (unit == 0).flatten(1).all(dim=1)
    beyond = torch.full_like(start, -1)
    low, high = torch.zeros(len(x), dtype=torch.float64), torch.full((len(x),), torch.inf, dtype=torch.float64)

    def _look(rows: Tensor, distance: Tensor) -> Tensor:
        """Narrow the rows to ``distance`` from above or below; those whose class is still the same."""
        found = make_logits(view, to_tensor(_along(x[rows], unit[rows], distance)), batch_size).argmax(dim=1)
        changed = found != start[rows]
        high[rows[changed]], beyond[rows[changed]] = distance[changed], found[changed]
        low[rows[~changed]] = distance[~changed]
        return rows[~changed]

    left = (~zero).nonzero()[:, 0]
    for step in range(1, steps + 1):
        if len(left):
            left = _look(left, torch.full((len(left),), far * step / steps, dtype=torch.float64))
    rows = (beyond >= 0).nonzero()[:, 0]
    for _ in range(math.ceil(math.log2(max(1.0, far / steps / width))) if len(rows) else 0):
        _look(rows, (low[rows] + high[rows]) / 2)
    high[zero] = torch.nan
    return start, beyond, high


def _inside_bounds(points: Tensor, view: TensorView) -> NDArray[np.bool_]:
    """Whether each point lies in ``clip_values``; all do where there are none."""
    bounds = view.bounds()
    if bounds is None:
        return np.ones(len(points), dtype=bool)
    slack = _INSIDE * view.value_range()
    low, high = (bound.cpu().double() for bound in bounds)
    within = (points >= low - slack) & (points <= high + slack)
    return np.asarray(within.flatten(1).all(dim=1).numpy())
