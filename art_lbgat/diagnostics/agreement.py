"""How far a model agrees with the guide: classes, logits, and who of the two is right."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from torch.nn import functional

from art_lbgat.checks import check_inputs
from art_lbgat.classifier import TensorView
from art_lbgat.diagnostics.subjects import (
    ADVERSARIAL,
    BATCH_SIZE,
    NATURAL,
    Models,
    check_alike,
    make_labels,
    make_logits,
    make_pairs,
    make_views,
)
from art_lbgat.evaluation.results import Accuracy


def agreement(
    guide: PyTorchClassifier,
    models: Models,
    x: Any,
    y: Any,
    x_adv: Any = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> pd.DataFrame:
    """``agreement = mean 1[argmax G = argmax M]``, ``mse = mean (G - M)^2``, ``kl = mean KL(softmax G || softmax M)``.

    ``G`` are the guide's logits, ``M`` the model's. With ``x_adv`` there are three rows per model: both on natural
    images, the guide on the natural and the model on the adversarial ones, both on the adversarial ones. The second is
    what BGAT and LBGAT train (arXiv 2011.11164): its ``mse`` is the guidance term of the loss, in eval mode.

    :param guide: The guide.
    :param models: The model that was guided, and others by name.
    :param x: Raw natural images, ``(N, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param x_adv: Adversarial images of the same shape, for all models; or a mapping from model names to those made
        against each; or None.
    :param batch_size: Images per pass.
    :return: Columns ``model``, ``guide_images``, ``model_images``, ``n``; ``agreement`` in [0, 1] with its 95 % Wilson
        interval ``low``, ``high``; ``mse`` over images and classes; ``kl`` in nats; ``cosine`` in [-1, 1], the mean
        over images of the cosine between the logits less their mean over classes; and the shares ``both_right``,
        ``guide_only``, ``model_only`` and ``both_wrong`` of the images, which sum to 1.
    :raises TypeError: If a classifier is no ``PyTorchClassifier``.
    :raises ValueError: Classifiers that cannot be compared, bad images or labels, NaN or Inf in logits.
    """
    views = make_views(models)
    guide_view = TensorView(guide, "guide")
    check_alike([guide_view, *views.values()])
    pairs = make_pairs(x, x_adv, views)
    for images in pairs.values():  # the guide's clip_values may be narrower
        for kind, each in images.items():
            check_inputs(each.numpy(), guide, "x" if kind == NATURAL else "x_adv")
    first = next(iter(pairs.values()))
    labels = make_labels(y, views, len(first[NATURAL]))
    seen: dict[int, Tensor] = {}  # the guide's logits of each set of images, computed once

    def _of_guide(images: Tensor) -> Tensor:
        if id(images) not in seen:
            seen[id(images)] = make_logits(guide_view, images, batch_size)
        return seen[id(images)]

    rows = []
    for name, view in views.items():
        logits = {kind: make_logits(view, images, batch_size) for kind, images in pairs[name].items()}
        for guide_kind, model_kind in ((NATURAL, NATURAL), (NATURAL, ADVERSARIAL), (ADVERSARIAL, ADVERSARIAL)):
            if model_kind in logits:
                measured = compare_logits(_of_guide(pairs[name][guide_kind]), logits[model_kind], labels)
                rows.append({"model": name, "guide_images": guide_kind, "model_images": model_kind, **measured})
    return pd.DataFrame(rows)


def compare_logits(guide: Tensor, model: Tensor, y: Tensor) -> dict[str, float]:
    """The columns of :func:`agreement` from ``n`` on.

    :param guide: Logits, float64 ``(N, C)``.
    :param model: Logits, float64 ``(N, C)``.
    :param y: Class indices, ``(N,)``.
    """
    same = guide.argmax(dim=1) == model.argmax(dim=1)
    share = Accuracy(int(same.sum()), len(same))
    low, high = share.interval
    log_guide, log_model = (functional.log_softmax(each, dim=1) for each in (guide, model))
    kl = functional.kl_div(log_model, log_guide, reduction="batchmean", log_target=True)
    centred = [each - each.mean(dim=1, keepdim=True) for each in (guide, model)]
    guide_right, model_right = (each.argmax(dim=1) == y for each in (guide, model))
    shares = {
        "both_right": guide_right & model_right,
        "guide_only": guide_right & ~model_right,
        "model_only": ~guide_right & model_right,
        "both_wrong": ~guide_right & ~model_right,
    }
    return {
        "n": share.n,
        "agreement": share.value,
        "low": low,
        "high": high,
        "mse": float(functional.mse_loss(model, guide)),
        "kl": max(0.0, float(kl)),  # rounding can leave it a hair below 0
        "cosine": float(functional.cosine_similarity(centred[0], centred[1], dim=1).mean()),
        **{name: float(each.to(torch.float64).mean()) for name, each in shares.items()},
    }
