"""Transferred discrepancy: two representations compared by how differently they serve downstream tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_lbgat.checks import as_array, check_choice, check_count, check_share
from art_lbgat.classifier import TensorView
from art_lbgat.diagnostics.agreement import BATCH_SIZE, Models, Views, make_images, make_views
from art_lbgat.evaluation.subject import hard_labels
from art_lbgat.memory import in_chunks
from art_lbgat.preserve import evaluating, plain_autograd, preserved_randomness, seed_everything

FeaturesLike: TypeAlias = Callable[[nn.Module, Tensor], Tensor]
Array = NDArray[np.float64]
Labels = NDArray[np.int64]

MEAN = "mean"  # the row over all tasks


def transferred_discrepancy(
    models: Models,
    tasks: Mapping[str, tuple[Any, Any]],
    *,
    features: FeaturesLike | Mapping[str, FeaturesLike] | None = None,
    head: Literal["least_squares", "logistic"] = "least_squares",
    held_out: float = 0.5,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> pd.DataFrame:
    """``TD(f_1, f_2; T) = d(h_1 o f_1, h_2 o f_2)``, ``h_i = argmin_h loss(h o f_i, T)``, ``h`` linear, ``f_i`` frozen.

    With ``P_i`` the scores of head ``i`` on held-out samples less the class frequencies of the training ones,
    ``d = || P_1 / ||P_1|| - P_2 / ||P_2|| ||^2 = 2 - 2 cos(P_1, P_2)`` (Frobenius): 0 for heads that say the same, 2
    for unrelated and 4 for opposite ones. The idea is that of Feng et al. 2020, arXiv 2007.12446; this ``d``, the split
    and the one-hot targets are choices made here, so the numbers are not comparable with those of the paper.

    :param models: At least two classifiers by name.
    :param tasks: ``(x, y)`` by name: raw inputs, and class indices or one-hot rows of any classes.
    :param features: A function ``(module, inputs) -> (n, ...)`` from preprocessed inputs to features, or one for each
        model by name; None is :func:`penultimate_features`.
    :param head: ``"least_squares"``, an unregularised linear head with intercept, which does not see invertible affine
        maps of the features; or, for fewer samples than features, ``"logistic"``: scikit-learn's L2-regularised
        regression on standardised features, invariant to shifts and scales only.
    :param held_out: The share of samples that the heads are compared on, in (0, 1).
    :param seed: Seed of the split, which is the same for all models.
    :param batch_size: Images per pass.
    :return: A row per pair of models and task, and one with ``task="mean"``: ``first``, ``second``, ``task``,
        ``n_train``, ``n`` (held out), ``discrepancy``, ``disagreement`` (the share of held-out samples that the heads
        classify differently), ``accuracy_first`` and ``accuracy_second`` of the heads.
    """
    views = make_views(models, minimum=2, same_classes=False)
    check_choice(head, "head", ("least_squares", "logistic"))
    check_share(held_out, "held_out")
    check_count(seed, "seed", minimum=0)
    check_count(batch_size, "batch_size")
    extractors = _extractors(features, views)
    rows = []
    known: dict[tuple[str, int], Array] = {}  # tasks often share their inputs
    for task, (given, x, y, nb_classes) in _read_tasks(tasks, views).items():
        train, test = _split(len(y), held_out, seed, task)
        if len(np.unique(y[train])) < 2:
            raise ValueError(f"tasks[{task!r}]: expected at least two classes in the training samples, got one.")
        scores = {}
        for name, view in views.items():
            key = (name, id(given))
            if key not in known:
                known[key] = _features(view, x, extractors[name], batch_size)
            scores[name] = fit_head(known[key][train], y[train], known[key][test], nb_classes, head, name)
        for first, second in itertools.combinations(views, 2):
            compared = compare_heads(scores[first], scores[second], y[train], y[test])
            rows.append({"first": first, "second": second, "task": task, "n_train": len(train), **compared})
    table = pd.DataFrame(rows)
    means = table.drop(columns="task").groupby(["first", "second"], sort=False, as_index=False).mean().assign(task=MEAN)
    means = means.round({"n_train": 0, "n": 0}).astype({"n_train": int, "n": int})
    return pd.concat([table, means[table.columns]], ignore_index=True)


def penultimate_features(module: nn.Module, inputs: Tensor) -> Tensor:
    """The input of the last ``nn.Linear`` that runs in ``module(inputs)``.

    :param module: A network; not changed.
    :param inputs: Preprocessed inputs, ``(n, ...)``.
    """
    seen: list[Tensor] = []
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    handles = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in linear]
    try:
        module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ValueError(
            f"features: {type(module).__name__} runs no nn.Linear, so its penultimate features are not known; expected "
            "features=a function (module, inputs) -> features."
        )
    return seen[-1]


def fit_head(train: Array, y: Labels, test: Array, nb_classes: int, head: str, name: str = "model") -> Array:
    """The scores ``(m, nb_classes)`` of a linear head on the held-out features ``test``, ``(m, d)``.

    ``least_squares``: ``W = argmin ||[1 F] W - onehot(y)||^2``, scores ``[1 F'] W``. ``logistic``: probabilities.
    """
    centre, spread = train.mean(axis=0), train.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    train, test = (train - centre) / spread, (test - centre) / spread  # changes no prediction, helps the solver
    if head == "logistic":
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(max_iter=2000).fit(train, y)
        scores = np.zeros((len(test), nb_classes))
        scores[:, fitted.classes_] = fitted.predict_proba(test)
        return scores
    onehot = np.eye(nb_classes)[y]
    weights, _, rank, _ = np.linalg.lstsq(train, onehot - onehot.mean(axis=0), rcond=None)
    if rank >= len(train) - 1:
        raise ValueError(
            f"tasks: {name} has {train.shape[1]} features, and a least-squares head on {len(train)} training samples "
            "can fit any labels; expected more samples than features, a smaller held_out, or head='logistic'."
        )
    return np.asarray(onehot.mean(axis=0) + test @ weights)


def compare_heads(first: Array, second: Array, y_train: Labels, y_test: Labels) -> dict[str, float]:
    """The columns of :func:`transferred_discrepancy` from ``n`` on, of the scores of two heads."""
    frequencies = np.bincount(y_train, minlength=first.shape[1]) / len(y_train)
    parts = [scores - frequencies for scores in (first, second)]
    one, other = (part / (np.linalg.norm(part) or 1.0) for part in parts)
    classes, others = first.argmax(axis=1), second.argmax(axis=1)
    return {
        "n": len(y_test),
        "discrepancy": float(((one - other) ** 2).sum()),
        "disagreement": float((classes != others).mean()),
        "accuracy_first": float((classes == y_test).mean()),
        "accuracy_second": float((others == y_test).mean()),
    }


def _read_tasks(tasks: Any, views: Views) -> dict[str, tuple[Any, Tensor, Labels, int]]:
    """The inputs as given and as a tensor, class indices and number of classes of each task."""
    if not isinstance(tasks, Mapping):
        raise TypeError(f"tasks: expected a mapping from names to pairs (x, y), got {type(tasks).__name__}.")
    if not tasks or MEAN in tasks:
        raise ValueError(f"tasks: expected at least one task, none of them named {MEAN!r}, got {list(tasks)}.")
    read = {}
    for name, task in tasks.items():
        title = f"tasks[{name!r}]"
        if not isinstance(task, tuple) or len(task) != 2:
            raise TypeError(f"{title}: expected a pair (x, y), got {type(task).__name__}.")
        images, labels = make_images(task[0], views, f"{title} x"), as_array(task[1], f"{title} y")
        classes = labels.shape[1] if labels.ndim == 2 and labels.shape[1] > 1 else int(labels.max(initial=0)) + 1
        read[name] = task[0], images, hard_labels(labels, classes, len(images), f"{title} y"), classes
    return read


def _split(n: int, held_out: float, seed: int, name: str) -> tuple[Labels, Labels]:
    order = np.random.default_rng(seed).permutation(n)
    first = round(n * held_out)
    if not 0 < first < n:
        raise ValueError(
            f"held_out: expected a share that leaves samples on both sides, got {held_out} of {n} in tasks[{name!r}]."
        )
    return np.sort(order[first:]), np.sort(order[:first])


def _extractors(features: Any, views: Views) -> dict[str, FeaturesLike]:
    found = features if isinstance(features, Mapping) else dict.fromkeys(views, features)
    if set(found) != set(views):
        raise ValueError(f"features: expected a key for each of {sorted(views)}, got {sorted(found)}.")
    for each in found.values():
        if each is not None and not callable(each):
            raise TypeError(f"features: expected a function (module, inputs) -> tensor, got {type(each).__name__}.")
    return {name: found[name] or penultimate_features for name in views}


def _features(view: TensorView, x: Tensor, extract: FeaturesLike, batch_size: int) -> Array:
    """``f(preprocessing(x))`` as float64 ``(N, d)``, of the model in eval mode; everything else is unchanged."""

    def _chunk(rows: Tensor) -> Tensor:
        found: Any = extract(view.module, view.predict_inputs(x[rows].to(view.device)))
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != len(rows):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"features: expected a tensor of shape ({len(rows)}, ...) from {view.name}, got {got}.")
        return found.flatten(1).cpu().double()

    with plain_autograd(view.device), evaluating(view.module), torch.no_grad(), preserved_randomness():
        seed_everything(0)
        array = in_chunks(_chunk, torch.arange(len(x)), batch_size).numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"features: expected finite values, got NaN or Inf from {view.name}.")
    return np.asarray(array)
