"""The one internal stream of ``(x, y)`` tensor batches, whatever the user passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from art.data_generators import DataGenerator
from torch.utils.data import DataLoader, Dataset

from art_lbgat.bridge import TensorView
from art_lbgat.checks import check_count, check_inputs, check_labels
from art_lbgat.data.arrays import ArrayStream
from art_lbgat.data.batches import AnyAugmentation, Batch, Stream, augmented, join_single
from art_lbgat.data.images import Images
from art_lbgat.data.mixed import MixedData, MixedStream
from art_lbgat.data.pipelines import make_augmentation
from art_lbgat.engine.randomness import Key

__all__ = ["ArrayStream", "Batch", "BatchStream", "Stream", "as_stream"]


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
        augmentation: AnyAugmentation | None = None,
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
        for step, batch in enumerate(join_single(checked) if self._avoid_single else checked):
            yield augmented(batch, self._augmentation, key, step, self._view)

    def _check(self, batch: Any) -> Batch:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            size = len(batch) if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"x: every batch must be a pair (x, y), got {size}.")
        # Generators hand out views of the user's arrays, so the batch is copied.
        x = check_inputs(batch[0], self._view.classifier, "x (a batch)").astype(np.float32)
        y = check_labels(batch[1], self._view.classifier.nb_classes, "y (a batch)", length=len(x))
        return Batch(torch.from_numpy(x), torch.from_numpy(y))


def as_stream(
    x: Any,
    y: Any,
    batch_size: int,
    view: TensorView,
    augmentation: AnyAugmentation | str | None = None,
    avoid_single: bool = False,
) -> Stream:
    """The stream of what ``fit`` or ``fit_generator`` was given.

    :param x: Arrays (with ``y``), :class:`~art_lbgat.data.Images`, :class:`~art_lbgat.data.MixedData`, a torch
        ``DataLoader`` or ``Dataset`` of pairs, or an ART ``DataGenerator``.
    :param y: Labels, or None where ``x`` brings its own.
    :param batch_size: Samples per batch; a loader or generator has its own.
    :param view: The classifier that is trained.
    :param augmentation: Applied to each batch; a name (see :func:`~art_lbgat.data.make_augmentation`); or None.
    :param avoid_single: Whether a batch of one must not occur.
    :return: The stream.
    :raises TypeError: If ``augmentation`` cannot be called.
    :raises ValueError: See :mod:`art_lbgat.checks`; or ``y`` given twice, or missing; or a generator without a size;
        or an unknown name of an augmentation.
    """
    check_count(batch_size, "batch_size")
    if isinstance(augmentation, str):
        augmentation = make_augmentation(augmentation, view.classifier.nb_classes)
    if augmentation is not None and not callable(augmentation):
        raise TypeError(
            "augmentation: expected a callable (x, generator) -> x or a name such as 'crop+flip', "
            f"got {type(augmentation).__name__}."
        )
    brings_labels = isinstance(x, (DataLoader, Dataset, DataGenerator, MixedData))
    if brings_labels and y is not None:
        raise ValueError(f"y: expected None, since {type(x).__name__} brings its own labels.")
    if not brings_labels and y is None:
        raise ValueError(
            "y: expected labels, got None (only Images, MixedData, a DataLoader, Dataset or generator brings its own)."
        )
    if isinstance(x, MixedData):
        return MixedStream(x, batch_size, view, augmentation, avoid_single)
    if brings_labels and not isinstance(x, Images):
        return BatchStream(*_batches(x, batch_size), view, augmentation, avoid_single)
    return ArrayStream(x, y, batch_size, view, augmentation, avoid_single)


def _batches(x: Any, batch_size: int) -> tuple[Callable[[], Iterable[Any]], int | None]:
    """What makes the batches of an epoch, and how many there are."""
    if isinstance(x, DataGenerator):
        if x.size is None:
            raise ValueError("generator: its size is None; expected the number of samples of an epoch.")
        steps = math.ceil(x.size / x.batch_size)
        return lambda: (x.get_batch() for _ in range(steps)), steps
    if not isinstance(x, DataLoader):
        # Its order follows torch's global generator, which is keyed by epoch while training.
        x = DataLoader(x, batch_size=batch_size, shuffle=not isinstance(x, torch.utils.data.IterableDataset))
    try:
        return lambda: x, len(x)
    except TypeError:  # an iterable data set without a length
        return lambda: x, None
