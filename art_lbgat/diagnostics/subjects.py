"""What every diagnostic starts from: named classifiers, checked images and labels, finite logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.checks import as_array, check_count, check_inputs, check_labels
from art_lbgat.classifier import TensorView
from art_lbgat.evaluation.subject import predict

Models: TypeAlias = PyTorchClassifier | Mapping[str, PyTorchClassifier]
Views = dict[str, TensorView]

NATURAL, ADVERSARIAL = "natural", "adversarial"
BATCH_SIZE = 250
INSIDE_TOLERANCE = 1e-6  # of the input range; float32 rounding of a point on the border is below it
_SEED = 0  # of models that draw at random: two calls give the same numbers


def make_views(models: Models, name: str = "models", minimum: int = 1, same_classes: bool = True) -> Views:
    """Classifiers by name; one that came without a name is called ``"model"``.

    :param models: One ``PyTorchClassifier`` or a mapping from names to several.
    :param name: The name of the argument.
    :param minimum: How many there must be.
    :param same_classes: Whether they must have the same number of classes.
    :raises TypeError: If one is no ``PyTorchClassifier``.
    :raises ValueError: Too few; classifiers that differ in ``nb_classes`` or ``input_shape``.
    """
    several = isinstance(models, Mapping)
    given: Mapping[Any, Any] = models if isinstance(models, Mapping) else {"model": models}
    if len(given) < minimum:
        raise ValueError(f"{name}: expected a mapping to at least {minimum} classifiers, got {len(given)}.")
    views = {str(key): TensorView(each, f"{name}[{key!r}]" if several else name) for key, each in given.items()}
    check_alike(list(views.values()), same_classes)
    return views


def check_alike(views: list[TensorView], same_classes: bool = True) -> None:
    """Refuse classifiers that cannot be compared.

    :param views: The classifiers.
    :param same_classes: Whether they need the same number of classes.
    :raises ValueError: If they differ in ``nb_classes`` or ``input_shape``.
    """
    first = views[0]
    for view in views[1:]:
        for attribute in ("input_shape", "nb_classes") if same_classes else ("input_shape",):
            found, expected = (getattr(v.classifier, attribute) for v in (view, first))
            if found != expected:
                raise ValueError(
                    f"{view.name}: expected {attribute}={expected} as that of {first.name}, got {found}; "
                    "only classifiers of the same inputs and classes can be compared."
                )


def make_images(x: Any, views: Views, name: str = "x", like: Tensor | None = None) -> Tensor:
    """Raw inputs as a new float32 tensor on the CPU, checked against every classifier.

    :param x: Array of shape ``(N, *input_shape)``, in ``clip_values``.
    :param views: Who will see them.
    :param name: The name of the argument.
    :param like: Images that they must match one by one, or None.
    :raises ValueError: As :func:`art_lbgat.checks.check_inputs`, or another number of samples than ``like``.
    """
    array = as_array(x, name)
    for view in views.values():
        check_inputs(array, view.classifier, name)
    if like is not None and len(array) != len(like):
        raise ValueError(f"{name}: expected {len(like)} samples, one per sample of x, got {len(array)}.")
    return to_tensor(array)


def to_tensor(array: Any) -> Tensor:
    """A new float32 tensor on the CPU, in C order, so that the memory format of the array changes no bit.

    :param array: Anything that numpy reads as an array of numbers.
    """
    with torch.inference_mode(False):
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def make_pairs(x: Any, x_adv: Any, views: Views) -> dict[str, dict[str, Tensor]]:
    """The images that each model sees: ``{model: {"natural": ..., "adversarial": ...}}``.

    :param x: Raw natural inputs, ``(N, *input_shape)``.
    :param x_adv: None; adversarial inputs of the same shape that every model sees; or a mapping from the name of each
        model to those made against it.
    :param views: The models.
    :raises ValueError: Bad images, or a mapping whose keys are not the names of the models.
    """
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
    return pairs


def make_labels(y: Any, views: Views, n: int) -> Tensor:
    """Hard labels as int64 indices ``(n,)``.

    :raises ValueError: As :func:`art_lbgat.checks.check_labels`, or soft labels.
    """
    labels = check_labels(y, next(iter(views.values())).classifier.nb_classes, length=n)
    if labels.ndim == 2:
        raise ValueError("y: expected hard labels (indices or one-hot), got soft ones.")
    with torch.inference_mode(False):
        return torch.from_numpy(labels)


def make_logits(view: TensorView, x: Tensor, batch_size: int) -> Tensor:
    """Logits as float64 ``(N, C)`` on the CPU, of the model in eval mode; everything is left as found.

    :param view: The classifier.
    :param x: Raw inputs, ``(N, ...)``, on the CPU.
    :param batch_size: Inputs per forward pass.
    :raises ValueError: NaN or Inf among them.
    """
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


def inside_bounds(points: Tensor, view: TensorView) -> NDArray[np.bool_]:
    """Whether each point lies in ``clip_values`` (all do where there are none), bool ``(N,)``.

    :param points: Inputs, ``(N, ...)``.
    :param view: The classifier.
    """
    bounds = view.bounds()
    if bounds is None:
        return np.ones(len(points), dtype=bool)
    slack = INSIDE_TOLERANCE * view.value_range()
    low, high = (bound.cpu().double() for bound in bounds)
    within = (points >= low - slack) & (points <= high + slack)
    return np.asarray(within.flatten(1).all(dim=1).numpy())
