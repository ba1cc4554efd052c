"""The one stream of ``(x, y)`` tensor batches, whatever the user passed; all random numbers are keyed."""

from __future__ import annotations

import abc
import itertools
import logging
import math
import operator
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from art.data_generators import DataGenerator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset

from art_lbgat.checks import check_count, check_flag, check_inputs, check_kind, check_labels
from art_lbgat.classifier import TensorView, label_rows, naming
from art_lbgat.data.augmentation import OF_IMAGES, AnyAugmentation, RandomCropFlip, apply, make_augmentation
from art_lbgat.data.images import Images, MixedData, as_float
from art_lbgat.fingerprint import described, sha256_of
from art_lbgat.memory import fits, runs_ahead, to_device
from art_lbgat.preserve import Key, seed_everything
from art_lbgat.processes import Processes, Share

logger = logging.getLogger(__name__)
_T = TypeVar("_T")
# What a loader that reads the rows of one process has of the loader it was made of.
_KEPT = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers"),
)


class Batch(NamedTuple):
    """One batch.

    :param x: Raw inputs, float32, ``(N, ...)``; on the CPU, or on the classifier's device where they were bytes, or are
        cropped and flipped on CUDA.
    :param y: Labels, indices ``(N,)`` or soft rows ``(N, C)``, on the CPU.
    :param share: Which rows of a global batch they are, where each process reads its own.
    """

    x: Tensor
    y: Tensor
    share: Share | None = None


class Stream(abc.ABC):
    """The batches of a training: order, augmentation and everything else drawn are functions of a key."""

    #: Batches of an epoch, if known.
    steps: int | None

    @abc.abstractmethod
    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch.

        :param key: Seed, fit and epoch.
        :param first_step: How many batches to leave out at the start, as trained on before a stop.
        """

    @abc.abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What the data are, as JSON that is equal for equal data."""

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """What :meth:`load` takes to resume; empty where batches are a function of the key alone.

        :param at_start: Whether to resume at the next epoch, rather than within the one last begun.
        """
        return {}

    def load(self, state: Mapping[str, Any], key: Key) -> None:  # noqa: B027 (most have no state)
        """Resume from a state: the next epoch that is asked for is that of ``key``.

        :param state: What the stream gave as its state.
        :param key: The place of the next epoch in the run.
        """


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

    Of data in memory every sample comes once per epoch, shuffled, and the last partial batch is kept.

    :param x: Arrays, :class:`Images`, :class:`MixedData`, torch's ``DataLoader`` or ``Dataset``, a ``DataGenerator``.
    :param y: Labels, or None where ``x`` brings its own.
    :param batch_size: Samples per batch; a loader or generator has its own.
    :param view: The classifier that is trained; the samples must have its shape, range and classes.
    :param augmentation: Applied to each batch; a name (see :func:`~art_lbgat.data.make_augmentation`); or None.
    :param avoid_single: Join a last batch of one sample to the one before it, since BatchNorm has no statistics of one.
    :param processes: Who trains on the same batches; each reads its share alone where that is possible.
    :return: The stream.
    """
    check_kind(view, "view", TensorView)
    check_count(batch_size, "batch_size")
    check_flag(avoid_single, "avoid_single")
    if isinstance(augmentation, str):
        augmentation = make_augmentation(augmentation, view.classifier.nb_classes, argument="augmentation")
    if augmentation is not None and not callable(augmentation):
        raise TypeError(
            "augmentation: expected a callable (x, generator) -> x or a name such as 'crop+flip', "
            f"got {type(augmentation).__name__}."
        )
    if isinstance(augmentation, OF_IMAGES):
        view.check_layout("augmentation")
    brings_labels = isinstance(x, (DataLoader, Dataset, DataGenerator, MixedData))
    if brings_labels and y is not None:
        raise ValueError(f"y: expected None, since {type(x).__name__} brings its own labels.")
    if not brings_labels and y is None:
        kinds = "only Images, MixedData, a DataLoader, Dataset or generator brings its own"
        raise ValueError(f"y: expected labels, got None ({kinds}).")
    if isinstance(x, MixedData):
        data = Source(*x.data, view, ("data", "data (labels)"))
        extra = Source(*x.extra, view, ("extra", "extra (labels)"))
        return _ArrayStream(data, batch_size, view, augmentation, avoid_single, extra, x.extra_fraction)
    if isinstance(x, Images) or not brings_labels:
        return _ArrayStream(Source(x, y, view), batch_size, view, augmentation, avoid_single)
    return _LoaderStream(x, batch_size, view, augmentation, avoid_single, processes or Processes())


class Source:
    """Samples in memory, checked once; bytes become ``low + x / scale * (high - low)`` on the classifier's device."""

    def __init__(self, x: Any, y: Any, view: TensorView, names: tuple[str, str] = ("x", "y")) -> None:
        self._view, self._scale, self._kept = view, None, None
        clip_values = view.classifier.clip_values
        self._scaled = clip_values is not None and (np.any(clip_values[0] != 0) or np.any(clip_values[1] != 1))
        if isinstance(x, Images):
            shape = tuple(view.classifier.input_shape)
            if x.image_shape != shape:
                raise ValueError(f"{names[0]}: expected shape (N, {', '.join(map(str, shape))}), got {x.x.shape}.")
            self._x, y, self._scale = x.x, x.y, x.scale
            if runs_ahead(view.device) and fits(x.x.nbytes, view.device):
                self._kept = torch.tensor(x.x, device=view.device)
        else:
            self._x = check_inputs(x, view.classifier, names[0])
        self._y = check_labels(y, view.classifier.nb_classes, names[1], length=len(self._x))

    def __len__(self) -> int:
        return len(self._x)

    def sha256(self) -> str:
        """SHA-256 over the samples and labels as they are held."""
        return sha256_of([self._x, self._y])

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The samples of these indices, in the classifier's range."""
        y, device = torch.from_numpy(self._y[indices]), self._view.device
        if self._scale is None:
            x = np.ascontiguousarray(self._x[indices], np.float32)  # last bits follow strides
            return Batch(torch.from_numpy(x), y)
        if self._kept is None:
            images = as_float(to_device(torch.from_numpy(self._x[indices]), device), self._scale)
        else:
            images = as_float(self._kept[to_device(torch.from_numpy(indices), device)], self._scale)
        bounds = self._view.bounds() if self._scaled else None
        if bounds is not None:
            low, high = bounds
            images = torch.minimum(low + images * (high - low), high)
        return Batch(images, y)


class _ArrayStream(Stream):
    """Shuffled batches of samples in memory, a share of each of which may be extra samples (see :class:`MixedData`)."""

    def __init__(
        self,
        data: Source,
        batch_size: int,
        view: TensorView,
        augmentation: AnyAugmentation | None,
        avoid_single: bool,
        extra: Source | None = None,
        extra_fraction: float = 0.0,
    ) -> None:
        self._data, self._extra, self._view, self._augmentation = data, extra, view, augmentation
        self._batch_size, self._extra_fraction = batch_size, extra_fraction
        self._sizes = _sizes(len(data), batch_size, extra_fraction, avoid_single)
        self.steps = len(self._sizes)

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        own, more = map(list, zip(*self._sizes, strict=True))
        order = torch.randperm(len(self._data), generator=key.generator("order"))
        parts, extra = torch.split(order, own), torch.split(self._extra_order(key, sum(more)), more)
        for step in range(first_step, len(own)):
            batch = self._data.batch(parts[step].numpy())
            if self._extra is not None:
                if more[step]:
                    batch = _joined(batch, self._extra.batch(extra[step].numpy()), self._view.device)
                places = torch.randperm(len(batch.x), generator=key._replace(step=step).generator("places"))
                batch = Batch(batch.x[places.to(batch.x.device)], batch.y[places])
            yield augmented(batch, self._augmentation, key, step, self._view)

    def _extra_order(self, key: Key, count: int) -> Tensor:
        """Indices of this epoch's extra samples: a window of one endless sequence of shuffled passes."""
        if self._extra is None:
            return torch.empty(0, dtype=torch.int64)
        first, size = max(key.epoch - 1, 0) * count, len(self._extra)
        passes = range(first // size, (first + count - 1) // size + 1)
        keys = [key._replace(epoch=0, step=number) for number in passes]
        orders = [torch.randperm(size, generator=each.generator("extra order")) for each in keys]
        return torch.cat(orders)[first - passes[0] * size :][:count]

    def fingerprint(self) -> dict[str, Any]:
        return {
            "sha256": self._data.sha256(),
            "extra": None if self._extra is None else [self._extra.sha256(), self._extra_fraction],
            "batch_size": self._batch_size,
            "steps": self.steps,
            "augmentation": described(self._augmentation),
        }


def _sizes(count: int, batch_size: int, extra_fraction: float, avoid_single: bool) -> list[tuple[int, int]]:
    """How many samples of the data, and how many extra ones, each batch of an epoch holds."""
    extra = round(batch_size * extra_fraction)
    own = batch_size - extra
    if extra_fraction and (extra == 0 or own == 0):
        expected = f"a share of which batches of {batch_size} (batch_size) hold samples of both kinds"
        got = f"{extra_fraction}: {own} of data and {extra} of extra"
        raise ValueError(f"extra_fraction: expected {expected}, got {got}.")
    sizes = [(own, extra)] * (count // own)
    left = count % own
    if left:
        sizes.append((left, round(left * extra / own)))
    if avoid_single and sum(sizes[-1]) == 1:
        if len(sizes) == 1 or batch_size == 1:
            got = f"batches of one sample (batch_size={batch_size}, {count} samples)"
            raise ValueError(f"batch_size: {got} give BatchNorm no statistics; expected at least 2 samples per batch.")
        logger.info("The last batch of one sample is joined to the one before it (BatchNorm needs at least two).")
        sizes[-2:] = [(own + left, extra)]
    return sizes


class _LoaderStream(Stream):
    """Checked batches of loaders and data sets; where they are lists of indices, a process fetches only its rows."""

    def __init__(
        self,
        source: Any,
        batch_size: int,
        view: TensorView,
        augmentation: AnyAugmentation | None,
        avoid_single: bool,
        processes: Processes,
    ) -> None:
        if isinstance(source, Dataset):
            if operator.length_hint(source, -1) == 0:
                raise ValueError(f"x: expected at least one sample, got an empty {type(source).__name__}.")
            # Its order follows torch's global generator, which is keyed by epoch while training.
            source = DataLoader(source, batch_size=batch_size, shuffle=not isinstance(source, IterableDataset))
        self._source, self._view, self._augmentation = source, view, augmentation
        self._avoid_single, self._processes = avoid_single, processes
        self._loader, self._shares = source, None
        if not isinstance(source, DataGenerator):
            length = operator.length_hint(source, -1)  # an iterable data set may have none
            self.steps = None if length < 0 else length
        elif source.size is None:
            raise ValueError("generator: its size is None; expected the number of samples of an epoch.")
        else:
            self.steps = math.ceil(source.size / source.batch_size)
        of_indices = isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset)
        if processes.world > 1 and of_indices and source.batch_sampler is not None:
            self._shares = _Shares(source.batch_sampler, processes, avoid_single)
            kept = {name: getattr(source, name) for name in _KEPT}
            self._loader = DataLoader(source.dataset, batch_sampler=self._shares, **kept)
        self._generators = _generators(source)
        self._found: list[Tensor] = []
        self._last: Batch | None = None
        self._expected: str | None = None

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        # Batches that are left out are fetched all the same.
        self._found = [generator.get_state() for generator in self._generators]
        if not first_step:
            self._check_same()
        own_key, shares = key, self._shares
        if shares is not None and self._processes.rank:  # each process augments its rows with numbers of its own
            own_key = key._replace(seed=key._replace(step=self._processes.rank).derive("process"))
        checked: Iterator[Batch] = (self._check(batch) for batch in self._fetched(key))
        if self._avoid_single and shares is None:
            checked = _without_single(checked)
        for step, batch in enumerate(checked):
            if shares is not None:
                if step == 0:
                    self._processes.check_same(
                        shares.checksum,
                        "x: the loaders of the processes shuffle in different orders; expected a loader without a "
                        "generator of its own (its order then follows the seed of the run), or generators of one seed "
                        "in all processes.",
                    )
                batch = batch._replace(share=shares.waiting.popleft())
            self._last = batch
            if step == first_step - 1:
                self._check_same()
            if step >= first_step:
                # NaN is the loop's to find, at the step where it would be trained on.
                finite = self._augmentation is None or bool(torch.isfinite(batch.x).all())
                yield augmented(batch, self._augmentation if finite else None, own_key, step, self._view)

    def _fetched(self, key: Key) -> Iterator[Any]:
        """The batches of an epoch, each fetched with global generators that are a function of its place in the run."""
        seed_everything(key.derive("data"))
        if isinstance(self._loader, DataGenerator):
            batches = (self._loader.get_batch() for _ in range(self.steps or 0))
        else:
            batches = iter(self._loader)
        for step in itertools.count():
            seed_everything(key._replace(step=step).derive("fetch"))
            try:
                with naming(lambda: f"x: {type(self._source).__name__} gives no batch of arrays or tensors."):
                    batch = next(batches)
            except StopIteration:
                return
            yield batch

    def _check(self, batch: Any) -> Batch:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            size = len(batch) if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"x: every batch must be a pair (x, y), got {size}.")
        # Generators hand out views of the user's arrays, so the batch is copied.
        x = check_inputs(batch[0], self._view.classifier, "x (a batch)", finite=False).astype(np.float32, order="C")
        y = check_labels(batch[1], self._view.classifier.nb_classes, "y (a batch)", length=len(x))
        return Batch(torch.from_numpy(x), torch.from_numpy(y))

    def fingerprint(self) -> dict[str, Any]:
        """What loader it is, and how long; of a ``TensorDataset`` the SHA-256 of all samples."""
        dataset = getattr(self._source, "dataset", self._source)
        size = getattr(self._source, "size", None)
        kinds = [type(self._source).__qualname__, type(dataset).__qualname__]
        if isinstance(dataset, TensorDataset):
            size = sha256_of(dataset.tensors)
        return {"kinds": kinds, "size": size, "steps": self.steps, "augmentation": described(self._augmentation)}

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """The loader's own generators as the epoch finds them, and the last batch's SHA-256 if it is one for all."""
        found = [generator.get_state() for generator in self._generators] if at_start else self._found
        last = None if self._last is None or self._shares is not None else sha256_of(self._last[:2])
        return {"generators": found, "last": last}

    def load(self, state: Mapping[str, Any], key: Key) -> None:
        for generator, found in zip(self._generators, state["generators"], strict=True):
            generator.set_state(found)
        self._expected = None if self._shares is not None else state["last"]
        if isinstance(self._source, DataGenerator) and key.epoch > 1:  # it cannot be set back
            logger.info("%d epochs of the generator are fetched again, to resume where it was.", key.epoch - 1)
            for epoch in range(1, key.epoch):
                for batch in self._fetched(key._replace(epoch=epoch)):
                    self._last = self._check(batch)

    def _check_same(self) -> None:
        """Whether the last batch left out is the last one trained on."""
        expected, self._expected = self._expected, None
        if expected is not None and self._last is not None and sha256_of(self._last[:2]) != expected:
            raise ValueError(
                "x: the loader gives other batches than in the run that was stopped; expected an order that follows "
                "torch's global generator or its own, and data that do not change. Start anew in another "
                "checkpoint_dir, or pass arrays."
            )


def _generators(source: Any) -> list[torch.Generator]:
    """The generators of their own that a loader and its samplers draw from."""
    owners = [source, getattr(source, "sampler", None), getattr(source, "batch_sampler", None)]
    owners.append(getattr(owners[-1], "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


class _Shares(BatchSampler):
    """The lists of indices of another sampler, in the same order in every process, cut to the share of this one."""

    def __init__(self, batches: Any, processes: Processes, avoid_single: bool) -> None:
        self._batches, self._processes, self._avoid_single = batches, processes, avoid_single
        self.waiting: deque[Share] = deque()  # of the batches that workers fetch ahead, until they are taken
        self.checksum = 0  # of the first global batch of the epoch

    def __iter__(self) -> Iterator[list[int]]:
        self.waiting.clear()
        batches: Iterator[list[int]] = map(list, self._batches)
        if self._avoid_single:
            batches = _joining_single(batches, len, operator.add)
        for step, batch in enumerate(batches):
            if step == 0:
                self.checksum = zlib.crc32(str(batch).encode())
            share = self._processes.share(len(batch))
            self.waiting.append(share)
            yield batch[share.rows]

    def __len__(self) -> int:
        return len(self._batches)


def augmented(batch: Batch, augmentation: AnyAugmentation | None, key: Key, step: int, view: TensorView) -> Batch:
    """The augmented batch, checked: an augmentation that leaves the range would let the attack leave the ball."""
    if augmentation is None:
        return batch
    key, x = key._replace(step=step), batch.x
    generator = key.generator("augmentation")
    if isinstance(augmentation, RandomCropFlip) and runs_ahead(view.device):
        x, generator = to_device(x, view.device), key.generator("augmentation", view.device)
    x, y = apply(augmentation, x, batch.y, generator, view.channels_last)
    # A crop or a flip can only bring in zeros, which the first batch shows; asking again would wait for the device.
    if not (step and isinstance(augmentation, RandomCropFlip)):
        x = view.taken(x, "augmentation (its output)")
    if len(x) != len(batch.x):
        raise ValueError(f"augmentation: expected {len(batch.x)} samples as it was given, got {len(x)}.")
    if y is not batch.y:
        check_labels(y, view.classifier.nb_classes, "augmentation (its labels)", length=len(x))
        y = y.float() if y.ndim == 2 else y
    return batch._replace(x=x.float(), y=y)


def _without_single(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, a last one of a single sample joined to the one before it; a single one elsewhere is refused."""
    for batch in _joining_single(batches, lambda batch: len(batch.x), _joined):
        if len(batch.x) == 1:
            raise ValueError("x: got a batch of one sample, of which BatchNorm has no statistics; expected at least 2.")
        yield batch


def _joining_single(batches: Iterable[_T], length: Callable[[_T], int], join: Callable[[_T, _T], _T]) -> Iterator[_T]:
    """The same batches, but with a last one of a single sample joined to the one before it."""
    held: list[_T] = []
    for batch in batches:
        held.append(batch)
        if len(held) == 3:
            yield held.pop(0)
    if len(held) == 2 and length(held[1]) == 1:
        held = [join(*held)]
    yield from held


def _joined(first: Batch, second: Batch, device: torch.device | None = None) -> Batch:
    """Both batches as one; indices become one-hot rows where the other's labels are soft."""
    x, y = [first.x, second.x], [first.y, second.y]
    if x[0].device != x[1].device:  # one held as bytes, the other as numbers
        x = [each.to(device) for each in x]
    classes = max(each.shape[1] if each.ndim == 2 else 0 for each in y)
    return Batch(torch.cat(x), torch.cat([label_rows(each, classes) for each in y] if classes else y))
