"""How far inside its class each image is, in logits."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from art_lbgat.diagnostics.subjects import BATCH_SIZE, NATURAL, Models, make_labels, make_logits, make_pairs, make_views


def margins(models: Models, x: Any, y: Any, x_adv: Any = None, *, batch_size: int = BATCH_SIZE) -> pd.DataFrame:
    """``margin = M_y - max_{k != y} M_k``, in logits: positive where the image is classified as labelled.

    ``frame.groupby(["model", "images"]).margin.describe()`` is the short form.

    :param models: One classifier, or several by name.
    :param x: Raw natural images, ``(N, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param x_adv: Adversarial images of the same shape, for all models; or a mapping from model names to those made
        against each; or None.
    :param batch_size: Images per pass.
    :return: A row per model, kind of images and image: ``model``, ``images`` (``"natural"``, ``"adversarial"``),
        ``sample``, ``label``, ``predicted``, ``margin``.
    :raises TypeError: If a classifier is no ``PyTorchClassifier``.
    :raises ValueError: Bad images or labels, NaN or Inf in logits.
    """
    views = make_views(models)
    pairs = make_pairs(x, x_adv, views)
    labels = make_labels(y, views, len(next(iter(pairs.values()))[NATURAL]))
    parts = []
    for name, view in views.items():
        for kind, images in pairs[name].items():
            logits = make_logits(view, images, batch_size)
            columns = {
                "model": name,
                "images": kind,
                "sample": range(len(labels)),
                "label": labels.numpy(),
                "predicted": logits.argmax(dim=1).numpy(),
                "margin": logit_margin(logits, labels).numpy(),
            }
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def logit_margin(logits: Tensor, y: Tensor) -> Tensor:
    """``M_y - max_{k != y} M_k``.

    :param logits: ``(N, C)``, at least two classes.
    :param y: Class indices, ``(N,)``.
    :return: ``(N,)``.
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return own[:, 0] - others.amax(dim=1)
