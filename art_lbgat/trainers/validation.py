"""Validation data: held out or given, checked once, judged after epochs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from art_lbgat.checks import check_inputs, check_labels
from art_lbgat.classifier import TensorView
from art_lbgat.data import Images, MixedData, split_indices
from art_lbgat.data.stream import Source
from art_lbgat.engine.history import correct
from art_lbgat.preserve import Key, Modes
from art_lbgat.processes import Processes
from art_lbgat.trainers.adversary import Adversary

logger = logging.getLogger(__name__)

_ROWS = 1024  # rows looked at together


class Validation:
    """Natural and robust accuracy on held-out data.

    Every epoch is attacked from the same random starts, so that epochs are compared on equal terms.

    :param data: ``(x, y)`` arrays, or :class:`~art_lbgat.data.Images`.
    :param view: The classifier that is trained.
    :param batch_size: Samples per batch; the starts do not depend on it (but an attack through ``generate`` may).
    :raises ValueError: If ``data`` is no pair, or its values are wrong (see :mod:`art_lbgat.checks`).
    """

    def __init__(self, data: Any, view: TensorView, batch_size: int) -> None:
        x, y = (data, None) if isinstance(data, Images) else _pair(data)
        source = Source(x, y, view, ("validation_data[0]", "validation_data[1]"))
        batch = source.batch(np.arange(len(source)))
        self._x, self._y = batch.x.cpu(), batch.y
        self._source = source
        self._view, self._batch_size = view, batch_size

    def fingerprint(self) -> str:
        """SHA-256 over samples and labels."""
        return self._source.sha256()

    def accuracies(
        self,
        modes: Modes,
        adversary: Adversary | None,
        seed: int,
        processes: Processes | None = None,
        before_batch: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """``validation_natural_accuracy`` and, with an adversary, ``validation_robust_accuracy``, in [0, 1].

        :param modes: The modes of the classifier's module, which is left in eval mode with frozen parameters.
        :param adversary: The attack that judges, or None.
        :param seed: Seed of the run.
        :param processes: Who judges a share of each batch; None for this process alone.
        :param before_batch: Called before each batch; what it raises ends the judging.
        :return: The accuracies by name; a sample counts as robust if it is right naturally and under attack.
        """
        modes.evaluate()
        processes = Processes() if processes is None else processes
        natural = robust = 0
        starts = [] if adversary is None else adversary.starts(self._x, Key(seed))
        for step, first in enumerate(range(0, len(self._x), self._batch_size)):
            before_batch()
            batch = slice(first, first + self._batch_size)
            share = processes.share(len(self._x[batch]))
            if not share.counted:
                continue
            x = share.of(self._x[batch]).to(self._view.device)
            y = share.of(self._y[batch]).to(self._view.device)
            with torch.no_grad():
                right = correct(self._view.logits(x), y)
            natural += int(right.sum())
            if adversary is not None:
                part = [None if s is None else share.of(s[batch]).to(self._view.device) for s in starts]
                x_adv = adversary.examples(x, y, Key(seed, step=step), starts=part)
                with torch.no_grad():
                    robust += int((right & correct(self._view.logits(x_adv), y)).sum())
        natural, robust = map(int, processes.total(torch.tensor([natural, robust])).tolist())
        result = {"validation_natural_accuracy": natural / len(self._x)}
        if adversary is not None:
            result["validation_robust_accuracy"] = robust / len(self._x)
        return result


def held_out(
    x: Any, y: Any, validation_data: Any, fraction: float, view: TensorView, seed: int | None
) -> tuple[Any, Any, Any]:
    """Split ``(x, y)`` into what is trained on and what is held out, with the same share of each class.

    :param x: Arrays (with ``y``) or :class:`~art_lbgat.data.Images`.
    :param y: Labels, or None.
    :param validation_data: Must be None.
    :param fraction: Share that is held out, in (0, 1).
    :param view: The classifier.
    :param seed: Seed of the split; None counts as 0.
    :return: ``x``, ``y`` and ``validation_data``.
    :raises ValueError: ``validation_data`` given as well, data that cannot be split, a class too small to be split.
    """
    if validation_data is not None:
        raise ValueError("validation_split: expected either validation_split or validation_data, got both.")
    if isinstance(x, Images) and y is None:
        first, second = split_indices(x.y, fraction, seed or 0, "validation_split")
        return x.subset(first), None, x.subset(second)
    if y is None:
        raise ValueError(f"validation_split: expected arrays (x, y) or Images to split, got {type(x).__name__}.")
    inputs = check_inputs(x, view.classifier)
    labels = check_labels(y, view.classifier.nb_classes, length=len(inputs))
    hard = labels if labels.ndim == 1 else labels.argmax(axis=1)
    first, second = split_indices(hard, fraction, seed or 0, "validation_split")
    return inputs[first], labels[first], (inputs[second], labels[second])


def warn_overlap(x: Any, y: Any, validation_data: Any, view: TensorView) -> None:
    """Warn when samples of ``validation_data`` are training samples too, so that selection is blind to overfitting.

    :param x: Training data; looked at are arrays, :class:`~art_lbgat.data.Images` and
        :class:`~art_lbgat.data.MixedData` (both halves).
    :param y: Labels, or None.
    :param validation_data: ``(x, y)`` arrays or ``Images``.
    :param view: The classifier, whose range ``Images`` are brought to.
    """
    held: tuple[Any, Any] = (validation_data, None) if isinstance(validation_data, Images) else _pair(validation_data)
    parts: list[tuple[Any, Any]] = [x.data, x.extra] if isinstance(x, MixedData) else [(x, y)]
    if not all(isinstance(each, (np.ndarray, torch.Tensor, Images)) for each, _ in [held, *parts]):
        return
    hashes = set(_row_hashes(*held, view, ("validation_data[0]", "validation_data[1]")))
    shared = len(hashes.intersection(value for part in parts for value in _row_hashes(*part, view)))
    if shared:
        logger.warning(
            "validation_data: %d of its %d different samples are in the training data too; expected held-out samples.",
            shared,
            len(hashes),
        )


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(f"validation_data: expected a pair (x, y), got {type(data).__name__}.")
    return data[0], data[1]


def _row_hashes(x: Any, y: Any, view: TensorView, names: tuple[str, str] = ("x", "y")) -> Iterator[int]:
    source = Source(x, y, view, names)
    for first in range(0, len(source), _ROWS):
        for row in source.batch(np.arange(first, min(first + _ROWS, len(source)))).x.cpu().numpy():
            yield hash(row.tobytes())
