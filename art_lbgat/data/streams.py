"""The one internal stream of ``(x, y)`` tensor batches, whatever the user passed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from art.data_generators import DataGenerator
from torch.utils.data import DataLoader, Dataset

from art_lbgat.checks import check_count, check_kind
from art_lbgat.classifier import TensorView
from art_lbgat.data.arrays import ArrayStream
from art_lbgat.data.batch_stream import BatchStream
from art_lbgat.data.batches import AnyAugmentation, Batch, Stream, check_augmentation
from art_lbgat.data.images import Images
from art_lbgat.data.mixed import MixedData, MixedStream
from art_lbgat.data.pipelines import make_augmentation
from art_lbgat.data.sharded import ShardedStream, can_be_sharded
from art_lbgat.processes import Processes

__all__ = ["ArrayStream", "Batch", "BatchStream", "Stream", "as_stream"]


def as_stream(
    x: Any,
    y: Any,
    batch_size: int,
    view: TensorView,
    augmentation: AnyAugmentation | str | None = None,
    avoid_single: bool = False,
    processes: Processes | None = None,
) -> Stream:
    """The stream of what ``fit`` or ``fit_generator`` was given.

    :param x: Arrays (with ``y``), :class:`~art_lbgat.data.Images`, :class:`~art_lbgat.data.MixedData`, a torch
        ``DataLoader`` or ``Dataset`` of pairs, or an ART ``DataGenerator``.
    :param y: Labels, or None where ``x`` brings its own.
    :param batch_size: Samples per batch; a loader or generator has its own.
    :param view: The classifier that is trained.
    :param augmentation: Applied to each batch; a name (see :func:`~art_lbgat.data.make_augmentation`); or None.
    :param avoid_single: Whether a batch of one must not occur.
    :param processes: Who trains on the same batches; each reads its share alone where that is possible.
    :return: The stream.
    :raises TypeError: If ``augmentation`` cannot be called.
    :raises ValueError: See :mod:`art_lbgat.checks`; or ``y`` given twice, or missing; or a generator without a size;
        or an unknown name of an augmentation.
    """
    check_kind(view, "view", TensorView)
    check_count(batch_size, "batch_size")
    if isinstance(augmentation, str):
        augmentation = make_augmentation(augmentation, view.classifier.nb_classes, argument="augmentation")
    check_augmentation(augmentation)
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
        source, batches, steps = _batches(x, batch_size)
        if processes is not None and can_be_sharded(source, processes):
            return ShardedStream(source, view, processes, augmentation, avoid_single)
        return BatchStream(source, batches, steps, view, augmentation, avoid_single)
    return ArrayStream(x, y, batch_size, view, augmentation, avoid_single)


def _batches(x: Any, batch_size: int) -> tuple[Any, Callable[[], Iterable[Any]], int | None]:
    """The loader or generator, what makes the batches of an epoch, and how many there are."""
    if isinstance(x, DataGenerator):
        if x.size is None:
            raise ValueError("generator: its size is None; expected the number of samples of an epoch.")
        steps = math.ceil(x.size / x.batch_size)
        return x, lambda: (x.get_batch() for _ in range(steps)), steps
    if not isinstance(x, DataLoader):
        # Its order follows torch's global generator, which is keyed by epoch while training.
        x = DataLoader(x, batch_size=batch_size, shuffle=not isinstance(x, torch.utils.data.IterableDataset))
    try:
        return x, lambda: x, len(x)
    except TypeError:  # an iterable data set without a length
        return x, lambda: x, None
