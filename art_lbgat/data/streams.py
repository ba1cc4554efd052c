"""The one internal stream of ``(x, y)`` tensor batches, whatever the user passed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from art.data_generators import DataGenerator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from art_lbgat.bridge import TensorView, label_rows
from art_lbgat.checks import Declares, check_count, check_inputs, check_labels
from art_lbgat.data.augmentation import Augmentation
from art_lbgat.engine.randomness import Key

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]


class Stream(Protocol):
    """Batches of an epoch: ``x`` float32 raw inputs ``(N, ...)``; ``y`` indices ``(N,)`` or soft rows ``(N, C)``."""

    steps: int | None

    def epoch(self, key: Key) -> Iterator[Batch]:
        """The batches of one epoch, on the CPU; order and augmentation are functions of ``key``."""


class ArrayStream:
    """Shuffled batches of two arrays; every sample once per epoch, the last partial batch kept.

    A last batch of one sample is joined to the batch before it where ``avoid_single`` asks for it (batch-norm
    statistics of one sample are undefined). The arrays are not copied; only batches are.

    :param x: Raw inputs, ``(n, ...)``.
    :param y: Labels as :func:`art_lbgat.checks.check_labels` returns them.
    :param batch_size: Samples per batch.
    :param classifier: Declares the shape and range that augmented batches must have.
    :param augmentation: Applied to each batch, or None.
    :param avoid_single: Whether a batch of one must not occur.
    :raises ValueError: ``avoid_single`` with a single sample, or with ``batch_size=1``.
    """

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        batch_size: int,
        classifier: Declares,
        augmentation: Augmentation | None = None,
        avoid_single: bool = False,
    ) -> None:
        if avoid_single and min(batch_size, len(x)) == 1:
            raise ValueError(
                f"batch_size: batches of one sample (batch_size={batch_size}, {len(x)} samples) give BatchNorm in "
                "train mode no statistics; expected at least 2 samples per batch."
            )
        self._x, self._y, self._augmentation, self._classifier = x, y, augmentation, classifier
        starts = list(range(0, len(x), batch_size))
        if avoid_single and len(x) - starts[-1] == 1:
            logger.info("The last batch of one sample is joined to the one before it (BatchNorm needs at least two).")
            starts.pop()
        self._slices = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(x)], strict=True)]
        self.steps: int | None = len(self._slices)

    def epoch(self, key: Key) -> Iterator[Batch]:
        """See :class:`Stream`."""
        order = torch.randperm(len(self._x), generator=key.generator("order")).numpy()
        for step, rows in enumerate(self._slices):
            chosen = order[rows]
            x = torch.from_numpy(self._x[chosen].astype(np.float32, copy=False))
            yield _augmented(x, self._augmentation, key, step, self._classifier), torch.from_numpy(self._y[chosen])


class BatchStream:
    """Batches that somebody else makes (ART's generators, torch's loaders), each one checked.

    :param batches: Called once per epoch; gives the ``(x, y)`` batches of that epoch.
    :param steps: How many there are, if known.
    :param view: The classifier whose shape, range and classes they must have.
    :param augmentation: Applied to each batch, or None.
    :param avoid_single: Join a batch of one sample to the one before it.
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Any]],
        steps: int | None,
        view: TensorView,
        augmentation: Augmentation | None = None,
        avoid_single: bool = False,
    ) -> None:
        self._batches, self._view, self._augmentation = batches, view, augmentation
        self._avoid_single = avoid_single
        self.steps = steps

    def epoch(self, key: Key) -> Iterator[Batch]:
        """See :class:`Stream`.

        :raises ValueError: If a batch is no ``(x, y)`` pair or has wrong values, or if the first is a single sample.
        """
        checked = (self._check(batch) for batch in self._batches())
        for step, (x, y) in enumerate(_join_single(checked) if self._avoid_single else checked):
            yield _augmented(x, self._augmentation, key, step, self._view.classifier), y

    def _check(self, batch: Any) -> Batch:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            size = len(batch) if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"x: every batch must be a pair (x, y), got {size}.")
        # Generators hand out views of the user's arrays, so the batch is copied.
        x = check_inputs(batch[0], self._view.classifier, "x (a batch)").astype(np.float32)
        y = check_labels(batch[1], self._view.classifier.nb_classes, "y (a batch)", length=len(x))
        return torch.from_numpy(x), torch.from_numpy(y)


def _augmented(x: Tensor, augmentation: Augmentation | None, key: Key, step: int, classifier: Declares) -> Tensor:
    """The augmented batch, checked: an augmentation that leaves the range would let the attack leave the ball."""
    if augmentation is None:
        return x
    augmented = augmentation(x, key._replace(step=step).generator("augmentation"))
    check_inputs(augmented, classifier, "augmentation (its output)")
    if len(augmented) != len(x):
        raise ValueError(f"augmentation: expected {len(x)} samples as it was given, got {len(augmented)}.")
    return augmented.float()


def _join_single(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, with a last one of a single sample joined to the one before it.

    :raises ValueError: A single sample anywhere else.
    """
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if len(held) == 3:
            yield _several(held.pop(0))
    if len(held) == 2 and len(held[1][0]) == 1:
        (x, y), (last_x, last_y) = held
        held = [(torch.cat([x, last_x]), torch.cat([_like(y, last_y), _like(last_y, y)]))]
    for batch in held:
        yield _several(batch)


def _several(batch: Batch) -> Batch:
    if len(batch[0]) == 1:
        raise ValueError(
            "x: got a batch of one sample, of which BatchNorm in train mode has no statistics; expected at least 2."
        )
    return batch


def _like(y: Tensor, other: Tensor) -> Tensor:
    """Indices as one-hot rows where the other half of a joined batch is soft."""
    if y.ndim == 1 and other.ndim == 2:
        return label_rows(y, other.shape[1])
    return y


def as_stream(
    x: Any,
    y: Any,
    batch_size: int,
    view: TensorView,
    augmentation: Augmentation | None = None,
    avoid_single: bool = False,
) -> Stream:
    """The stream of what ``fit`` or ``fit_generator`` was given.

    :param x: Arrays (with ``y``), a torch ``DataLoader`` or ``Dataset`` of pairs, or an ART ``DataGenerator``.
    :param y: Labels, or None where ``x`` brings its own.
    :param batch_size: Samples per batch; a loader or generator has its own.
    :param view: The classifier that is trained.
    :param augmentation: Applied to each batch, or None.
    :param avoid_single: Whether a batch of one must not occur.
    :return: The stream.
    :raises ValueError: See :mod:`art_lbgat.checks`; or ``y`` given twice, or missing; or a generator without a size.
    """
    check_count(batch_size, "batch_size")
    if augmentation is not None and not callable(augmentation):
        raise TypeError(f"augmentation: expected a callable (x, generator) -> x, got {type(augmentation).__name__}.")
    brings_labels = isinstance(x, (DataLoader, Dataset, DataGenerator))
    if brings_labels and y is not None:
        raise ValueError(f"y: expected None, since {type(x).__name__} brings its own labels.")
    if isinstance(x, DataGenerator):
        if x.size is None:
            raise ValueError("generator: its size is None; expected the number of samples of an epoch.")
        steps = math.ceil(x.size / x.batch_size)
        return BatchStream(
            lambda: (x.get_batch() for _ in range(steps)), steps, view, augmentation, avoid_single=avoid_single
        )
    if isinstance(x, Dataset) and not isinstance(x, DataLoader):
        # Its order follows torch's global generator, which is keyed by epoch while training.
        x = DataLoader(x, batch_size=batch_size, shuffle=not isinstance(x, torch.utils.data.IterableDataset))
    if isinstance(x, DataLoader):
        loader = x
        try:
            length: int | None = len(loader)
        except TypeError:  # an iterable data set without a length
            length = None
        return BatchStream(lambda: loader, length, view, augmentation, avoid_single=avoid_single)
    if y is None:
        raise ValueError("y: expected labels, got None (only a DataLoader, Dataset or generator brings its own).")
    inputs = check_inputs(x, view.classifier)
    labels = check_labels(y, view.classifier.nb_classes, length=len(inputs))
    return ArrayStream(inputs, labels, batch_size, view.classifier, augmentation, avoid_single)
