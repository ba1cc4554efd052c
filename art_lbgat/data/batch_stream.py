"""Batches that somebody else makes: ART's generators, torch's loaders."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from art.data_generators import DataGenerator
from torch import Tensor
from torch.utils.data import TensorDataset

from art_lbgat.checks import check_count, check_flag, check_inputs, check_kind, check_labels
from art_lbgat.classifier import TensorView
from art_lbgat.data.batches import AnyAugmentation, Batch, augmented, check_augmentation, join_single
from art_lbgat.fingerprint import described, sha256_of
from art_lbgat.preserve import Key, seed_everything

logger = logging.getLogger(__name__)


class BatchStream:
    """Batches that somebody else makes (ART's generators, torch's loaders), each one checked.

    :param source: The generator or loader they come from.
    :param batches: Called once per epoch; gives the ``(x, y)`` batches of that epoch.
    :param steps: How many there are, if known.
    :param view: The classifier whose shape, range and classes they must have.
    :param augmentation: Applied to each batch, or None.
    :param avoid_single: Join a batch of one sample to the one before it.
    :raises TypeError: An argument of another type.
    """

    def __init__(
        self,
        source: Any,
        batches: Callable[[], Iterable[Any]],
        steps: int | None,
        view: TensorView,
        augmentation: AnyAugmentation | None = None,
        avoid_single: bool = False,
    ) -> None:
        if not callable(batches):
            raise TypeError(f"batches: expected a function that gives batches, got {type(batches).__name__}.")
        if steps is not None:
            check_count(steps, "steps", minimum=0)
        check_kind(view, "view", TensorView)
        check_augmentation(augmentation)
        check_flag(avoid_single, "avoid_single")
        self._batches, self._view, self._augmentation = batches, view, augmentation
        self._source, self._avoid_single = source, avoid_single
        self.steps = steps
        self._generators = _generators(source)
        self._found: list[Tensor] = []
        self._last: Batch | None = None
        self._expected: str | None = None

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        """See :class:`Stream`; batches that are left out are fetched all the same.

        :raises ValueError: If a batch is no ``(x, y)`` pair or has wrong values, if the first is a single sample, or if
            the batches that are left out are not those of the run that was stopped.
        """
        self._found = [generator.get_state() for generator in self._generators]
        if not first_step:
            self._check_same()
        checked = (self._check(batch) for batch in self._fetched(key))
        for step, batch in enumerate(join_single(checked) if self._avoid_single else checked):
            self._last = batch
            if step == first_step - 1:
                self._check_same()
            if step >= first_step:
                # NaN is the loop's to find, at the step where it would be trained on.
                finite = self._augmentation is None or bool(torch.isfinite(batch.x).all())
                augmentation = self._augmentation if finite else None
                yield augmented(batch, augmentation, self._key_of_augmentation(key), step, self._view)

    def _key_of_augmentation(self, key: Key) -> Key:
        return key

    def _fetched(self, key: Key) -> Iterator[Any]:
        """The batches of an epoch, each fetched with global generators that are a function of its place in the run."""
        seed_everything(key.derive("data"))
        batches = iter(self._batches())
        for step in itertools.count():
            seed_everything(key._replace(step=step).derive("fetch"))
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def fingerprint(self) -> Any:
        """See :class:`Stream`: what loader it is, and how long; of a ``TensorDataset`` the SHA-256 of all samples."""
        dataset = getattr(self._source, "dataset", self._source)
        size = getattr(self._source, "size", None)
        kinds = [type(self._source).__qualname__, type(dataset).__qualname__]
        if isinstance(dataset, TensorDataset):
            size = sha256_of(dataset.tensors)
        return {"kinds": kinds, "size": size, "steps": self.steps, "augmentation": described(self._augmentation)}

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """See :class:`Stream`: the loader's own generators as the epoch finds them, and the last batch's SHA-256."""
        last = None if self._last is None else sha256_of([self._last.x, self._last.y])
        found = [generator.get_state() for generator in self._generators] if at_start else self._found
        return {"generators": found, "last": last}

    def load(self, state: Mapping[str, Any], key: Key) -> None:
        """See :class:`Stream`. An ART generator goes on from batch to batch, so its earlier epochs are fetched anew."""
        for generator, found in zip(self._generators, state["generators"], strict=True):
            generator.set_state(found)
        self._expected = state["last"]
        if isinstance(self._source, DataGenerator) and key.epoch > 1:
            logger.info("%d epochs of the generator are fetched again, to go on where it was.", key.epoch - 1)
            for epoch in range(1, key.epoch):
                for batch in self._fetched(key._replace(epoch=epoch)):
                    self._last = self._check(batch)

    def _check_same(self) -> None:
        """Whether the last batch left out is the last one trained on."""
        expected, self._expected = self._expected, None
        if expected is not None and self._last is not None and sha256_of([self._last.x, self._last.y]) != expected:
            raise ValueError(
                "x: the loader gives other batches than in the run that was stopped, so going on would not be the same "
                "run; expected a loader whose order follows torch's global generator or its own, and data that do not "
                "change. Start anew in another checkpoint_dir, or pass arrays."
            )

    def _check(self, batch: Any) -> Batch:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            size = len(batch) if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"x: every batch must be a pair (x, y), got {size}.")
        # Generators hand out views of the user's arrays, so the batch is copied.
        x = check_inputs(batch[0], self._view.classifier, "x (a batch)", finite=False).astype(np.float32)
        y = check_labels(batch[1], self._view.classifier.nb_classes, "y (a batch)", length=len(x))
        return Batch(torch.from_numpy(x), torch.from_numpy(y))


def _generators(source: Any) -> list[torch.Generator]:
    """The generators of their own that a loader and its samplers draw from."""
    owners = [source, getattr(source, "sampler", None), getattr(source, "batch_sampler", None)]
    owners.append(getattr(owners[-1], "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())
