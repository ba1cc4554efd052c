"""What comes from logits on given images: agreement with the guide, margins, calibration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor
from torch.nn import functional

from art_lbgat.checks import as_array, check_count, check_inputs
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.results import Accuracy
from art_lbgat.evaluation.subject import hard_labels, predict, to_tensor

Models: TypeAlias = PyTorchClassifier | Mapping[str, PyTorchClassifier]
Views: TypeAlias = dict[str, TensorView]

NATURAL, ADVERSARIAL = "natural", "adversarial"
BATCH_SIZE = 250
_SEED = 0  # of models that draw at random: two calls give the same numbers


def agreement(
    guide: PyTorchClassifier, models: Models, x: Any, y: Any, x_adv: Any = None, *, batch_size: int = BATCH_SIZE
) -> pd.DataFrame:
    """``agreement = mean 1[argmax G = argmax M]``, ``mse = mean (G - M)^2``, ``kl = mean KL(softmax G || softmax M)``.

    ``G`` are the guide's logits, ``M`` the model's. With ``x_adv`` there are three rows per model: both on natural
    images, the guide on the natural and the model on the adversarial ones (what BGAT and LBGAT train, arXiv
    2011.11164: its ``mse`` is the guidance term of the loss, in eval mode), both on the adversarial ones.

    :param guide: The guide.
    :param models: The model that was guided, and others by name.
    :param x: Raw natural images, ``(N, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param x_adv: Adversarial images for all models, or a mapping from model names to those made against each, or None.
    :param batch_size: Images per pass.
    :return: Columns ``model``, ``guide_images``, ``model_images``, ``n``; ``agreement`` with its 95 % Wilson interval
        ``low``, ``high``; ``mse``; ``kl`` in nats; ``cosine``, between the logits less their mean over classes; and
        the shares ``both_right``, ``guide_only``, ``model_only`` and ``both_wrong`` of the images.
    """
    views, pairs, labels = _prepared(models, x, y, x_adv)
    guide_view = TensorView(guide, "guide")
    _check_alike([guide_view, *views.values()])
    guide_logits: dict[int, Tensor] = {}  # models often share their images
    for kind, images in (item for pair in pairs.values() for item in pair.items()):
        if id(images) not in guide_logits:  # the guide's clip_values may be narrower
            check_inputs(images.numpy(), guide, "x" if kind == NATURAL else "x_adv")
            guide_logits[id(images)] = make_logits(guide_view, images, batch_size)
    rows = []
    for name, view in views.items():
        logits = {kind: make_logits(view, images, batch_size) for kind, images in pairs[name].items()}
        for guide_kind, model_kind in ((NATURAL, NATURAL), (NATURAL, ADVERSARIAL), (ADVERSARIAL, ADVERSARIAL)):
            if model_kind in logits:
                measured = _compare(guide_logits[id(pairs[name][guide_kind])], logits[model_kind], labels)
                rows.append({"model": name, "guide_images": guide_kind, "model_images": model_kind, **measured})
    return pd.DataFrame(rows)


def margins(models: Models, x: Any, y: Any, x_adv: Any = None, *, batch_size: int = BATCH_SIZE) -> pd.DataFrame:
    """``margin = M_y - max_{k != y} M_k``, in logits: positive where the image is classified as labelled.

    :param models: One classifier, or several by name; the others are arguments of :func:`agreement`, errors too.
    :return: A row per model, kind of images and image: ``model``, ``images`` (``"natural"``, ``"adversarial"``),
        ``sample``, ``label``, ``predicted``, ``margin``.
    """
    parts = []
    for named, logits, labels in _each_logits(models, x, y, x_adv, batch_size):
        own = logits.gather(1, labels[:, None])[:, 0]
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        columns = {"sample": range(len(labels)), "label": labels.numpy(), "predicted": logits.argmax(dim=1).numpy(),
                   "margin": (own - others).numpy()}  # fmt: skip
        parts.append(pd.DataFrame({**named, **columns}))
    return pd.concat(parts, ignore_index=True)


def calibration(
    models: Models, x: Any, y: Any, x_adv: Any = None, *, bins: int = 15, batch_size: int = BATCH_SIZE
) -> pd.DataFrame:
    """``ECE = sum_m |B_m| / N * |acc(B_m) - conf(B_m)|`` with the bins of :func:`reliability`.

    Source: Guo et al. 2017, arXiv 1706.04599, section 2; 15 bins as in its tables.

    :param models: One classifier, or several by name; the others are arguments of :func:`reliability`.
    :return: A row per model and kind of images: ``model``, ``images``, ``n``, ``accuracy``, ``confidence`` (mean),
        ``overconfidence`` (``confidence - accuracy``), ``ece``, and ``mce``, the largest gap of a bin.
    """
    table = reliability(models, x, y, x_adv, bins=bins, batch_size=batch_size)
    rows = []
    for (name, kind), part in table[table["n"] > 0].groupby(["model", "images"], sort=False):
        n, gap = int(part["n"].sum()), (part["accuracy"] - part["confidence"]).abs()
        averaged = (part["accuracy"], part["confidence"], gap)
        accuracy, confidence, ece = (float((part["n"] / n * each).sum()) for each in averaged)
        rows.append({"model": name, "images": kind, "n": n, "accuracy": accuracy, "confidence": confidence,
                     "overconfidence": confidence - accuracy, "ece": ece, "mce": float(gap.max())})  # fmt: skip
    return pd.DataFrame(rows)


def reliability(
    models: Models, x: Any, y: Any, x_adv: Any = None, *, bins: int = 15, batch_size: int = BATCH_SIZE
) -> pd.DataFrame:
    """``B_m = {i : conf_i in ((m - 1) / M, m / M]}``, ``conf_i = max_k softmax(M(x_i))_k``, ``m = 1 .. M``.

    ``acc(B_m)`` is the share of ``B_m`` classified as labelled, ``conf(B_m)`` its mean confidence: the points of the
    reliability diagram. Source: Guo et al. 2017, arXiv 1706.04599, section 2.

    :param models: One classifier, or several by name; the others are arguments of :func:`agreement`.
    :param bins: ``M``, equal in width.
    :return: A row per model, kind of images and bin: ``model``, ``images``, ``bin`` (from 1), ``low``, ``high``, ``n``,
        ``accuracy``, ``confidence`` (NaN in empty bins).
    """
    check_count(bins, "bins")
    edges = np.linspace(0.0, 1.0, bins + 1)
    parts = []
    for named, logits, labels in _each_logits(models, x, y, x_adv, batch_size):
        confidence = torch.softmax(logits, dim=1).amax(dim=1).numpy()
        right = (logits.argmax(dim=1) == labels).numpy().astype(float)
        place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
        n = np.bincount(place, minlength=bins)
        with np.errstate(invalid="ignore"):  # 0 / 0 in empty bins
            means = [np.bincount(place, weights=each, minlength=bins) / n for each in (right, confidence)]
        columns = {"bin": np.arange(1, bins + 1), "low": edges[:-1], "high": edges[1:], "n": n}
        parts.append(pd.DataFrame({**named, **columns, "accuracy": means[0], "confidence": means[1]}))
    return pd.concat(parts, ignore_index=True)


def _each_logits(
    models: Models, x: Any, y: Any, x_adv: Any, batch_size: int
) -> Iterator[tuple[dict[str, str], Tensor, Tensor]]:
    """For every model and kind of images: what they are called, the logits and the labels."""
    views, pairs, labels = _prepared(models, x, y, x_adv)
    for name, view in views.items():
        for kind, images in pairs[name].items():
            yield {"model": name, "images": kind}, make_logits(view, images, batch_size), labels


def make_views(models: Models, minimum: int = 1, same_classes: bool = True) -> Views:
    """At least ``minimum`` classifiers of the same inputs by name; one that has no name is called ``"model"``."""
    named = models if isinstance(models, Mapping) else {"model": models}
    if len(named) < minimum:
        raise ValueError(f"models: expected a mapping to at least {minimum} classifiers, got {len(named)}.")
    title = "models[{!r}]" if named is models else "models"
    views = {str(key): TensorView(each, title.format(key)) for key, each in named.items()}
    _check_alike(list(views.values()), same_classes)
    return views


def make_images(x: Any, views: Views, name: str = "x", like: Tensor | None = None) -> Tensor:
    """Raw inputs as a new float32 tensor, checked against every classifier and, one by one, against ``like``."""
    array = as_array(x, name)
    for view in views.values():
        array = check_inputs(array, view.classifier, name)
    if like is not None and len(array) != len(like):
        raise ValueError(f"{name}: expected {len(like)} samples, one per sample of x, got {len(array)}.")
    return to_tensor(array)


def make_logits(view: TensorView, x: Tensor, batch_size: int) -> Tensor:
    """Finite logits as float64 ``(N, C)`` on the CPU, of the model in eval mode; everything else is unchanged."""
    check_count(batch_size, "batch_size")
    with torch.inference_mode(False):
        logits = predict(view, x, batch_size, _SEED).double()
        bad = (~torch.isfinite(logits).all(dim=1)).nonzero()
    if len(bad):
        raise ValueError(
            f"{view.name}: its logits are NaN or Inf for {len(bad)} of {len(x)} images, first in image "
            f"{int(bad[0, 0])}; expected finite logits."
        )
    return logits


def _check_alike(views: list[TensorView], same_classes: bool = True) -> None:
    for view, attribute in itertools.product(views[1:], ("input_shape", *(["nb_classes"] if same_classes else []))):
        found, expected = (getattr(v.classifier, attribute) for v in (view, views[0]))
        if found != expected:
            raise ValueError(
                f"{view.name}: expected {attribute}={expected} as that of {views[0].name}, got {found}; "
                "only classifiers of the same inputs and classes can be compared."
            )


def _prepared(models: Models, x: Any, y: Any, x_adv: Any) -> tuple[Views, dict[str, dict[str, Tensor]], Tensor]:
    """The models, the images that each sees, as ``{model: {"natural": ..., "adversarial": ...}}``, and the labels."""
    views = make_views(models)
    natural = make_images(x, views)
    pairs = {name: {NATURAL: natural} for name in views}
    if isinstance(x_adv, Mapping):
        if set(x_adv) != set(views):
            raise ValueError(f"x_adv: expected a key for each of the models {sorted(views)}, got {sorted(x_adv)}.")
        for name, view in views.items():
            pairs[name][ADVERSARIAL] = make_images(x_adv[name], {name: view}, f"x_adv[{name!r}]", natural)
    elif x_adv is not None:
        adversarial = make_images(x_adv, views, "x_adv", natural)
        for images in pairs.values():
            images[ADVERSARIAL] = adversarial
    with torch.inference_mode(False):
        nb_classes = next(iter(views.values())).classifier.nb_classes
        return views, pairs, torch.from_numpy(hard_labels(y, nb_classes, len(natural)))


def _compare(guide: Tensor, model: Tensor, y: Tensor) -> dict[str, float]:
    """The columns of :func:`agreement` from ``n`` on."""
    share = Accuracy(int((guide.argmax(dim=1) == model.argmax(dim=1)).sum()), len(y))
    low, high = share.interval
    log_guide, log_model = (functional.log_softmax(each, dim=1) for each in (guide, model))
    kl = functional.kl_div(log_model, log_guide, reduction="batchmean", log_target=True)
    centred = [each - each.mean(dim=1, keepdim=True) for each in (guide, model)]
    guide_right, model_right = (each.argmax(dim=1) == y for each in (guide, model))
    shares = {"both_right": guide_right & model_right, "guide_only": guide_right & ~model_right,
              "model_only": ~guide_right & model_right, "both_wrong": ~guide_right & ~model_right}  # fmt: skip
    return {
        "n": share.n,
        "agreement": share.value,
        "low": low,
        "high": high,
        "mse": float(functional.mse_loss(model, guide)),
        "kl": max(0.0, float(kl)),  # rounding can leave it a hair below 0
        "cosine": float(functional.cosine_similarity(centred[0], centred[1], dim=1).mean()),
        **{name: float(each.double().mean()) for name, each in shares.items()},
    }
