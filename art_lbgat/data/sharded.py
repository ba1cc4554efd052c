"""A torch loader of which every process reads its own share of each batch, and nothing else."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from art_lbgat.classifier import TensorView
from art_lbgat.data.batch_stream import BatchStream
from art_lbgat.data.batches import AnyAugmentation, Batch
from art_lbgat.preserve import Key
from art_lbgat.processes import Processes, Share

_OTHER_ORDER = (
    "x: the loaders of the processes shuffle in different orders; expected a loader without a generator of its own "
    "(its order then follows the seed of the run), or generators of one seed in all processes."
)


class ShardedBatches(BatchSampler):
    """The batches of indices of another sampler, cut to the share of this process.

    :param batches: The sampler of the global batches, in the same order in every process.
    :param processes: Who shares them.
    :param avoid_single: Join a last batch of one sample to the one before it, as one process does.
    """

    def __init__(self, batches: Iterable[list[int]], processes: Processes, avoid_single: bool = False) -> None:
        self._batches, self._processes, self._avoid_single = batches, processes, avoid_single
        #: The shares of the batches that were handed out and not taken yet, in their order.
        self.shares: deque[Share] = deque()
        #: A checksum of the first global batch of the epoch.
        self.checksum = 0

    def __iter__(self) -> Iterator[list[int]]:
        self.shares.clear()
        for step, batch in enumerate(self._joined()):
            if step == 0:
                self.checksum = zlib.crc32(str(list(batch)).encode())
            share = self._processes.share(len(batch))
            self.shares.append(share)
            yield list(batch)[share.rows]

    def _joined(self) -> Iterator[list[int]]:
        held: list[list[int]] = []
        for batch in self._batches:
            held.append(list(batch))
            if len(held) == 3:
                yield held.pop(0)
        if self._avoid_single and len(held) == 2 and len(held[1]) == 1:
            held = [held[0] + held[1]]
        yield from held

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]


class ShardedStream(BatchStream):
    """A torch loader over a data set with indices, of which every process reads its own share of each batch.

    :param loader: The loader of the global batches, as one process would use it.
    :param view: The classifier whose shape, range and classes they must have.
    :param processes: Who shares them; all must shuffle alike.
    :param augmentation: Applied to this process's rows, with random numbers of their own, or None.
    :param avoid_single: Join a last batch of one sample to the one before it.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        view: TensorView,
        processes: Processes,
        augmentation: AnyAugmentation | None = None,
        avoid_single: bool = False,
    ) -> None:
        batches = ShardedBatches(loader.batch_sampler, processes, avoid_single)  # type: ignore[arg-type]
        made: DataLoader[Any] = DataLoader(
            loader.dataset,
            batch_sampler=batches,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
        super().__init__(loader, lambda: made, len(batches), view, augmentation)
        self._sampler, self._processes = batches, processes

    def epoch(self, key: Key, first_step: int = 0) -> Iterator[Batch]:
        """See :class:`~art_lbgat.data.Stream`: this process's rows, which say what share they are.

        :raises ValueError: As :class:`BatchStream`; or if the processes shuffle in different orders.
        """
        for step, batch in enumerate(super().epoch(key, first_step), first_step):
            if step == first_step:
                self._processes.check_same(self._sampler.checksum, _OTHER_ORDER)
                for _ in range(first_step):
                    self._sampler.shares.popleft()
            yield batch._replace(share=self._sampler.shares.popleft())

    def _key_of_augmentation(self, key: Key) -> Key:
        rank = self._processes.rank
        return key._replace(seed=key._replace(step=rank).derive("process")) if rank else key

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """See :class:`~art_lbgat.data.Stream`: the last batch is no part of it, since each process has another."""
        return {**super().state(at_start=at_start), "last": None}

    def load(self, state: Mapping[str, Any], key: Key) -> None:
        """See :class:`~art_lbgat.data.Stream`: likewise of the last batch, which one process kept whole."""
        super().load({**state, "last": None}, key)


def can_be_sharded(source: Any, processes: Processes) -> bool:
    """Whether every process can read its own rows of what ``source`` gives: its batches are lists of indices.

    :param source: A loader or a data set.
    :param processes: The processes.
    """
    if processes.world == 1 or not isinstance(source, DataLoader):
        return False
    return source.batch_sampler is not None and not isinstance(source.dataset, IterableDataset)
