"""Whether the confidence of a model is the rate at which it is right, on natural and adversarial images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from art_lbgat.checks import check_count
from art_lbgat.diagnostics.subjects import BATCH_SIZE, NATURAL, Models, make_labels, make_logits, make_pairs, make_views


def calibration(
    models: Models, x: Any, y: Any, x_adv: Any = None, *, bins: int = 15, batch_size: int = BATCH_SIZE
) -> pd.DataFrame:
    """``ECE = sum_m |B_m| / N * |acc(B_m) - conf(B_m)|`` with the bins of :func:`reliability`.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2; 15 bins as in its tables.

    :param models: As :func:`reliability`, and so are ``x``, ``y``, ``x_adv``, ``bins`` and ``batch_size``.
    :return: A row per model and kind of images: ``model``, ``images``, ``n``, ``accuracy``, ``confidence`` (mean),
        ``overconfidence`` (``confidence - accuracy``), ``ece``, and ``mce``, the largest gap of a bin; all in [0, 1]
        but ``overconfidence`` in [-1, 1].
    :raises TypeError: If a classifier is no ``PyTorchClassifier``.
    :raises ValueError: Bad images or labels, ``bins`` below 1, NaN or Inf in logits.
    """
    table = reliability(models, x, y, x_adv, bins=bins, batch_size=batch_size)
    rows = []
    for (name, kind), part in table[table["n"] > 0].groupby(["model", "images"], sort=False):
        weight = part["n"] / part["n"].sum()
        gap = (part["accuracy"] - part["confidence"]).abs()
        accuracy, confidence = (float((weight * part[column]).sum()) for column in ("accuracy", "confidence"))
        rows.append(
            {
                "model": name,
                "images": kind,
                "n": int(part["n"].sum()),
                "accuracy": accuracy,
                "confidence": confidence,
                "overconfidence": confidence - accuracy,
                "ece": float((weight * gap).sum()),
                "mce": float(gap.max()),
            }
        )
    return pd.DataFrame(rows)


def reliability(
    models: Models, x: Any, y: Any, x_adv: Any = None, *, bins: int = 15, batch_size: int = BATCH_SIZE
) -> pd.DataFrame:
    """``B_m = {i : conf_i in ((m - 1) / M, m / M]}``, ``conf_i = max_k softmax(M(x_i))_k``, ``m = 1 .. M``.

    ``acc(B_m)`` is the share of ``B_m`` classified as labelled, ``conf(B_m)`` its mean confidence: the points of the
    reliability diagram. Source: Guo et al. 2017, arXiv 1706.04599, section 2.

    :param models: One classifier, or several by name.
    :param x: Raw natural images, ``(N, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param x_adv: Adversarial images of the same shape, for all models; or a mapping from model names to those made
        against each; or None.
    :param bins: ``M``, equal in width.
    :param batch_size: Images per pass.
    :return: A row per model, kind of images and bin: ``model``, ``images``, ``bin`` (from 1), ``low``, ``high``, ``n``,
        ``accuracy``, ``confidence`` (NaN in empty bins).
    :raises TypeError: If a classifier is no ``PyTorchClassifier``, or ``bins`` no whole number.
    :raises ValueError: Bad images or labels, ``bins`` below 1, NaN or Inf in logits.
    """
    check_count(bins, "bins")
    views = make_views(models)
    pairs = make_pairs(x, x_adv, views)
    labels = make_labels(y, views, len(next(iter(pairs.values()))[NATURAL]))
    parts = []
    for name, view in views.items():
        for kind, images in pairs[name].items():
            logits = make_logits(view, images, batch_size)
            confidence = torch.softmax(logits, dim=1).amax(dim=1).numpy()
            right = (logits.argmax(dim=1) == labels).numpy()
            part = bin_confidences(confidence, right, bins)
            part.insert(0, "model", name)
            part.insert(1, "images", kind)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def bin_confidences(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int) -> pd.DataFrame:
    """The bins of :func:`reliability`, without the names.

    :param confidence: In (0, 1], ``(N,)``.
    :param right: Which samples are classified as labelled, ``(N,)``.
    :param bins: Number of bins.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights=w, minlength=bins) for w in (right.astype(float), confidence))
    with np.errstate(invalid="ignore"):
        accuracy, mean = (total / n for total in sums)
    columns = {"low": edges[:-1], "high": edges[1:], "n": n, "accuracy": accuracy, "confidence": mean}
    return pd.DataFrame({"bin": np.arange(1, bins + 1), **columns})
