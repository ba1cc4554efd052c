"""One batch of a stream: what it holds, how it is augmented and checked, how single samples are joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from art_lbgat.checks import check_inputs, check_labels
from art_lbgat.classifier import TensorView, label_rows
from art_lbgat.data.augmentation import Augmentation, LabelAugmentation, RandomCropFlip
from art_lbgat.data.pipelines import apply
from art_lbgat.preserve import Key
from art_lbgat.processes import Share

AnyAugmentation = Augmentation | LabelAugmentation


class Batch(NamedTuple):
    """One batch.

    :param x: Raw inputs, float32, ``(N, ...)``.
    :param y: Labels, indices ``(N,)`` or soft rows ``(N, C)``.
    :param rows: Which samples of the data set they are, ``(N,)`` int64 on the CPU; None where that is not known.
    :param share: Which rows of a global batch they are, where each process reads its own; None: the whole batch.
    """

    x: Tensor
    y: Tensor
    rows: Tensor | None = None
    share: Share | None = None


class Stream(Protocol):
    """Batches of an epoch: ``x`` float32 raw inputs ``(N, ...)``; ``y`` indices ``(N,)`` or soft rows ``(N, C)``."""

    steps: int | None

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; order and augmentation are functions of ``key``.

        ``x`` is on the CPU, or on the classifier's device where it was held as bytes.

        :param key: Seed, fit and epoch.
        :param first_step: How many batches to leave out, at the start: they were trained on before a stop.
        """

    def fingerprint(self) -> Any:
        """What the data are, as JSON that is equal for equal data."""

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """What :meth:`load` takes to go on; empty where batches are a function of the key alone.

        :param at_start: Whether to go on with the next epoch, rather than in the midst of the one that was last begun.
        """

    def load(self, state: Mapping[str, Any], key: Key) -> None:
        """Go on from a state: the next epoch that is asked for is that of ``key``.

        :param state: What the stream gave as its state.
        :param key: The place of the next epoch in the run.
        """


def check_augmentation(augmentation: Any) -> None:
    """Refuse what cannot be applied to batches.

    :param augmentation: What came.
    :raises TypeError: If it is neither None nor can be called.
    """
    if augmentation is not None and not callable(augmentation):
        raise TypeError(
            "augmentation: expected a callable (x, generator) -> x or a name such as 'crop+flip', "
            f"got {type(augmentation).__name__}."
        )


def augmented(batch: Batch, augmentation: AnyAugmentation | None, key: Key, step: int, view: TensorView) -> Batch:
    """The augmented batch, checked: an augmentation that leaves the range would let the attack leave the ball.

    :param batch: Checked samples.
    :param augmentation: Applied to them, or None.
    :param key: Seed, fit and epoch.
    :param step: The step within the epoch.
    :param view: The classifier whose shape, range and classes the result must have.
    :return: The batch, ``x`` float32, the same rows.
    :raises TypeError: If the augmentation gives back something else than tensors.
    :raises ValueError: If it gives another shape, number of samples or range, NaN, or labels that are none.
    """
    if augmentation is None:
        return batch
    generator = key._replace(step=step).generator("augmentation")
    x, y = apply(augmentation, batch.x, batch.y, generator)
    # A crop or a flip can only bring in zeros, which the first batch shows; asking again would wait for the device.
    if not (step and isinstance(augmentation, RandomCropFlip)) and not view.takes(x):
        check_inputs(x, view.classifier, "augmentation (its output)")
    if len(x) != len(batch.x):
        raise ValueError(f"augmentation: expected {len(batch.x)} samples as it was given, got {len(x)}.")
    if y is not batch.y:
        check_labels(y, view.classifier.nb_classes, "augmentation (its labels)", length=len(x))
        y = y.float() if y.ndim == 2 else y
    return Batch(x.float(), y, batch.rows)


def join_single(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, with a last one of a single sample joined to the one before it.

    :param batches: The batches of one epoch.
    :return: The same samples in the same order; a joined batch has rows if both halves have.
    :raises ValueError: A single sample anywhere else.
    """
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if len(held) == 3:
            yield _several(held.pop(0))
    if len(held) == 2 and len(held[1].x) == 1:
        held = [joined(*held)]
    for batch in held:
        yield _several(batch)


def joined(first: Batch, second: Batch) -> Batch:
    """Both batches as one, soft labels if either has some.

    :param first: A batch.
    :param second: The batch after it.
    """
    rows = None if first.rows is None or second.rows is None else torch.cat([first.rows, second.rows])
    y = torch.cat([_like(first.y, second.y), _like(second.y, first.y)])
    return Batch(torch.cat([first.x, second.x]), y, rows)


def _several(batch: Batch) -> Batch:
    if len(batch.x) == 1:
        raise ValueError(
            "x: got a batch of one sample, of which BatchNorm in train mode has no statistics; expected at least 2."
        )
    return batch


def _like(y: Tensor, other: Tensor) -> Tensor:
    """Indices as one-hot rows where the other half of a joined batch is soft."""
    if y.ndim == 1 and other.ndim == 2:
        return label_rows(y, other.shape[1])
    return y
