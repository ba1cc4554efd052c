"""A torch loader of which every process reads its own share of each batch, and nothing else."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from art_lbgat.bridge import TensorView
from art_lbgat.data.batch_stream import BatchStream
from art_lbgat.data.batches import AnyAugmentation, Batch
from art_lbgat.engine.processes import Processes, Share
from art_lbgat.engine.randomness import Key


class ShardedBatches(BatchSampler):
    """The batches of indices of another sampler, cut to the share of this process.

    :param batches: The sampler of the global batches, in the same order in every process.
    :param processes: Who shares them.
    """

    def __init__(self, batches: Iterable[list[int]], processes: Processes) -> None:
        self._batches, self._processes = batches, processes
        #: The shares of the batches that were handed out and not taken yet, in their order.
        self.shares: deque[Share] = deque()
        #: A checksum of the first global batch of the epoch.
        self.checksum = 0

    def __iter__(self) -> Iterator[list[int]]:
        self.shares.clear()
        for step, batch in enumerate(self._batches):
            if step == 0:
                self.checksum = zlib.crc32(str(list(batch)).encode())
            share = self._processes.share(len(batch))
            self.shares.append(share)
            yield list(batch)[share.rows]

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]


class ShardedStream(BatchStream):
    """A torch loader over a data set with indices, of which every process reads its own share of each batch.

    :param loader: The loader of the global batches, as one process would use it.
    :param view: The classifier whose shape, range and classes they must have.
    :param processes: Who shares them; all must shuffle alike.
    :param augmentation: Applied to this process's rows, with random numbers of their own, or None.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        view: TensorView,
        processes: Processes,
        augmentation: AnyAugmentation | None = None,
    ) -> None:
        batches = ShardedBatches(loader.batch_sampler, processes)  # type: ignore[arg-type]
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
                check_same_order(self._sampler.checksum, self._processes)
                for _ in range(first_step):
                    self._sampler.shares.popleft()
            yield batch._replace(share=self._sampler.shares.popleft())

    def _key_of_augmentation(self, key: Key) -> Key:
        rank = self._processes.rank
        return key._replace(seed=key._replace(step=rank).derive("process")) if rank else key

    def state(self, *, at_start: bool) -> dict[str, Any]:
        """See :class:`~art_lbgat.data.Stream`: the last batch is no part of it, since each process has another."""
        return {**super().state(at_start=at_start), "last": None}


def can_be_sharded(source: Any, processes: Processes) -> bool:
    """Whether every process can read its own rows of what ``source`` gives: its batches are lists of indices.

    :param source: A loader or a data set.
    :param processes: The processes.
    """
    if processes.world == 1 or not isinstance(source, DataLoader):
        return False
    return source.batch_sampler is not None and not isinstance(source.dataset, IterableDataset)


def check_same_order(checksum: int, processes: Processes) -> None:
    """Refuse processes whose loaders shuffle in different orders, so that samples would be repeated and left out.

    :param checksum: Of the first global batch of an epoch, in this process.
    :param processes: All of which ask.
    :raises ValueError: If the processes have different ones.
    """
    high, low = processes.largest([checksum, -checksum])
    if high != -low:
        raise ValueError(
            "x: the loaders of the processes shuffle in different orders; expected a loader without a generator of its "
            "own (its order then follows the seed of the run), or generators of one seed in all processes."
        )
