"""How far the decision boundary is along a direction, how far two boundaries are apart, and where one has moved."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.checks import check_count, check_norm, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.diagnostics.rays import Search, first_crossing, unit_directions
from art_lbgat.diagnostics.subjects import BATCH_SIZE, Models, inside_bounds, make_images, make_views
from art_lbgat.evaluation.subject import whole_range


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

    Each model is measured from its own class of ``x``, right or wrong. It is an upper bound of the distance to the
    nearest boundary, which may lie in another direction. The class is looked at in ``steps`` equal steps; the first
    that differs is narrowed by bisection, so the class at ``distance`` does differ, and a class that comes and goes
    within one step is not seen. Points outside ``clip_values`` are looked at as they are: nothing is clipped, which
    would bend the ray; ``inside`` says which boundaries lie among valid images.

    :param models: One classifier, or several by name.
    :param x: Raw images, ``(N, *input_shape)``.
    :param directions: An array of the shape of ``x``, or several by name, as :func:`directions` makes them; of any
        length, since they are scaled to ``||d|| = 1``. A zero direction has no distance.
    :param norm: ``np.inf`` or 2: what ``distance`` is measured in.
    :param max_distance: How far to look, in input units; None is the largest distance between two images in
        ``clip_values``.
    :param steps: Steps up to ``max_distance``.
    :param tolerance: Where bisection stops, as a share of ``max_distance``.
    :param batch_size: Images per pass.
    :return: A row per model, direction and image: ``model``, ``direction``, ``sample``, ``predicted`` (at ``x``),
        ``beyond`` (the class behind the boundary, -1 if none was found), ``distance`` in input units (infinite if no
        boundary was found, NaN for a zero direction), ``inside``. ``attrs`` holds ``norm`` and ``max_distance``.
    :raises TypeError: If a classifier is no ``PyTorchClassifier``.
    :raises ValueError: Bad images, directions of another shape or not finite, numbers out of range, no
        ``max_distance`` where ``clip_values`` is None, NaN or Inf in logits.
    """
    views = make_views(models)
    images = make_images(x, views)
    norm = check_norm(norm)
    far = _reach(max_distance, next(iter(views.values())), norm)
    search = Search(
        far,
        check_count(steps, "steps"),
        check_number(tolerance, "tolerance", exclusive=True) * far,
        check_count(batch_size, "batch_size"),
    )
    given = directions if isinstance(directions, Mapping) else {"given": directions}
    if not given:
        raise ValueError("directions: expected at least one direction, got an empty mapping.")
    units = {str(key): unit_directions(each, images, norm, f"directions[{key!r}]") for key, each in given.items()}
    parts = []
    for (name, view), (direction, unit) in itertools.product(views.items(), units.items()):
        found = first_crossing(view, images, unit, search)
        at = torch.nan_to_num(found.distance, nan=0.0, posinf=0.0)
        crossing = images.double() + unit * at.reshape(-1, *[1] * (images.ndim - 1))
        columns = {
            "model": name,
            "direction": direction,
            "sample": range(len(images)),
            "predicted": found.start.numpy(),
            "beyond": found.beyond.numpy(),
            "distance": found.distance.numpy(),
            "inside": inside_bounds(crossing, view) & (found.beyond >= 0).numpy(),
        }
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)
    table.attrs.update(norm="inf" if norm == math.inf else "2", max_distance=far)
    return table


def boundary_gap(distances: pd.DataFrame) -> pd.DataFrame:
    """``gap = t_second - t_first`` along the same ray: how far apart the boundaries of two models are.

    :param distances: The table of :func:`boundary_distance` of at least two models.
    :return: A row per pair of models and direction: ``first``, ``second``, ``direction``; ``n``, the images from which
        both boundaries were found; ``mean_distance`` (``mean |gap|``), ``mean_gap`` and ``median_gap`` over these, in
        input units (NaN if ``n`` is 0).
    :raises ValueError: If it is no such table, or holds one model only.
    """
    missing = {"model", "direction", "sample", "distance"} - set(distances.columns)
    if missing:
        raise ValueError(f"distances: expected the table of boundary_distance, missing columns {sorted(missing)}.")
    names = list(dict.fromkeys(distances["model"]))
    if len(names) < 2:
        raise ValueError(f"distances: expected at least two models, got {names}.")
    rows = []
    for direction, part in distances.groupby("direction", sort=False):
        wide = part.pivot_table(index="sample", columns="model", values="distance", dropna=False)
        for first, second in itertools.combinations(names, 2):
            gap = wide[second] - wide[first]
            gap = gap[np.isfinite(wide[first]) & np.isfinite(wide[second])]
            rows.append(
                {
                    "first": first,
                    "second": second,
                    "direction": direction,
                    "n": len(gap),
                    "mean_distance": float(gap.abs().mean()),
                    "mean_gap": float(gap.mean()),
                    "median_gap": float(gap.median()),
                }
            )
    table = pd.DataFrame(rows)
    table.attrs.update(distances.attrs)
    return table


def boundary_shift(
    guide_after: PyTorchClassifier,
    guide_natural: PyTorchClassifier,
    x: Any,
    directions: Any,
    **options: Any,
) -> pd.DataFrame:
    """``shift = t_after - t_before`` along the same ray: positive where the boundary moved away from the image.

    For the guide after LBGAT against the same network trained on natural images alone: what the robust model taught
    its guide.

    :param guide_after: The guide after LBGAT.
    :param guide_natural: The purely natural model.
    :param x: Raw images, ``(N, *input_shape)``.
    :param directions: As :func:`boundary_distance`.
    :param options: ``norm``, ``max_distance``, ``steps``, ``tolerance``, ``batch_size`` of :func:`boundary_distance`.
    :return: A row per direction and image: ``direction``, ``sample``, ``before``, ``after``, ``shift`` in input units
        (infinite where only one boundary was found, NaN where none was), ``same`` (whether both classify ``x`` alike).
        ``attrs`` as :func:`boundary_distance`.
    :raises TypeError: As :func:`boundary_distance`.
    :raises ValueError: As :func:`boundary_distance`.
    """
    models = {"after": guide_after, "before": guide_natural}
    table = boundary_distance(models, x, directions, **options)
    after, before = (table[table["model"] == name].reset_index(drop=True) for name in models)
    with np.errstate(invalid="ignore"):  # inf - inf
        shift = after["distance"].to_numpy() - before["distance"].to_numpy()
    columns = {
        "direction": after["direction"],
        "sample": after["sample"],
        "before": before["distance"],
        "after": after["distance"],
        "shift": shift,
        "same": after["predicted"] == before["predicted"],
    }
    shifts = pd.DataFrame(columns)
    shifts.attrs.update(table.attrs)
    return shifts


def _reach(max_distance: float | None, view: TensorView, norm: float) -> float:
    if max_distance is not None:
        return check_number(max_distance, "max_distance", exclusive=True)
    reach = whole_range(view, norm)
    if not math.isfinite(reach):
        raise ValueError(f"max_distance: expected a number > 0, since {view.name} has no clip_values, got None.")
    return reach
