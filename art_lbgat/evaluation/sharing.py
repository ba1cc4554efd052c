"""The batches of an evaluation shared by the processes that run it, so that each ends with what one would have found.

A batch of an attack is a function of the batch and the seed alone, so it does not matter which process runs it. After
each round of as many batches as there are processes all of them know what was found, and the main process has written
it down. With one process nothing is exchanged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from art_lbgat.evaluation.record import Entry, Record
from art_lbgat.processes import Processes, join_processes

Found = Mapping[int, Entry]  # by the place of the batch
T = TypeVar("T")

_DTYPES = {str(dtype): dtype for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ValueError, TypeError, OSError, FileNotFoundError, PermissionError, BlockingIOError, ImportError)
}
_LENGTH = 8  # bytes of the length of the header


@contextmanager
def sharing(device: torch.device) -> Iterator[Sharing]:
    """The processes that run this evaluation together; all of them have to come here.

    :param device: Where the model of this process is.
    :return: For the block, what they do together.
    :raises RuntimeError: If another process has ended.
    :raises ValueError: See :func:`~art_lbgat.processes.join_processes`.
    """
    processes = join_processes(device)
    with processes.gathering() as gathered:
        yield Sharing(processes, gathered)


class Sharing:
    """What several processes do together: what one of them cannot do, none does.

    :param processes: The processes.
    :param gathered: From what this one has to what each has.
    """

    def __init__(self, processes: Processes, gathered: Callable[[bytes], list[bytes]]) -> None:
        self.rank, self.world, self.is_main = processes.rank, processes.world, processes.is_main
        self._gathered = gathered

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Whether all processes judge the same thing in the same way.

        :param facts: What this one does, by name, as JSON.
        :raises ValueError: In every process, if they do not; names what differs, with the first two values.
        """
        if self.world == 1:
            return
        everyones = [json.loads(each) for each in self._gathered(json.dumps(dict(facts)).encode())]
        main = everyones[0]
        for rank, theirs in enumerate(everyones):
            names = [name for name in {**main, **theirs} if main.get(name) != theirs.get(name)]
            if names:
                changes = "; ".join(f"{name}: {main.get(name)!r} and {theirs.get(name)!r}" for name in names)
                raise ValueError(
                    f"processes: expected the same model, data and settings in all {self.world}, but process 0 and "
                    f"process {rank} have other ones ({changes})."
                )

    def each(self, work: Callable[[], Found]) -> dict[int, Entry]:
        """What the work of each process found, known to all; of two findings at one place that of the lower rank.

        :param work: What this process does.
        :raises Exception: What the work raised; where it was that of another process, an error of the same kind that
            says so (``RuntimeError`` for rare kinds).
        """
        if self.world == 1:
            return dict(work())
        raised: Exception | None = None
        try:
            mine = _packed(work())
        except Exception as error:
            raised, mine = error, _packed({}, error)
        everyones = [_unpacked(each) for each in self._gathered(mine)]
        if raised is not None:
            raise raised
        for rank, (failure, _) in enumerate(everyones):
            if failure is not None:
                kind, message = failure
                raise _ERRORS.get(kind, RuntimeError)(f"{message} (raised by process {rank} of {self.world})")
        return {place: entry for _, found in reversed(everyones) for place, entry in found.items()}

    def of_main(self, work: Callable[[], Found]) -> dict[int, Entry]:
        """What the work of the main process found, known to all; the others do nothing. Errors as :meth:`each`.

        :param work: What the main process does.
        """
        return self.each(work if self.is_main else dict)

    def every(self, work: Callable[[], T]) -> T:
        """What the work makes in this process, once it is done in all; where it fails in one, it fails in all.

        :raises Exception: As :meth:`each`.
        """
        made: list[T] = []

        def done() -> Found:
            made.append(work())
            return {}

        self.each(done)
        return made[0]

    def main_first(self, work: Callable[[], T]) -> T:
        """Work that may write files: the main process does it, then the others, which find these there.

        :raises Exception: As :meth:`each`.
        """
        made = self.every(lambda: work() if self.is_main else None)
        return work() if made is None else made

    def round(self, record: Record, part: str, places: Sequence[int], work: Callable[[int], Entry]) -> list[Entry]:
        """The entries of at most as many batches as there are processes: from the record, or made and added to it.

        :param record: Finished batches are taken from that of the main process and added to it.
        :param part: The attack.
        :param places: Where its batches start, ``len(places) <= world``.
        :param work: Runs the batch at one place.
        :return: In the order of the places, the same in all processes.
        :raises Exception: As :meth:`each`.
        """

        def recorded() -> Found:
            found = ((place, record.get(part, place)) for place in places)
            return {place: entry for place, entry in found if entry is not None}

        known = self.of_main(recorded)
        missing = [place for place in places if place not in known]
        if missing:
            mine = missing[self.rank : self.rank + 1]
            made = self.each(lambda: {place: work(place) for place in mine})

            def keep() -> Found:
                for place in missing:
                    record.add(part, made[place], place)
                return {}

            self.of_main(keep)
            known |= made
        return [known[place] for place in places]


def _packed(found: Found, error: Exception | None = None) -> bytes:
    """Entries and the error of a process as bytes that run nothing when they are read."""
    header, parts = [], []
    for place, entry in found.items():
        x_adv = entry.x_adv.detach().cpu().contiguous()
        header.append([place, len(entry.rows), str(x_adv.dtype), list(x_adv.shape), dict(entry.flags), entry.seconds])
        parts += [_bytes(entry.rows.to("cpu", torch.int64)), _bytes(x_adv)]
    failure = None if error is None else [type(error).__name__, str(error)]
    text = json.dumps([failure, header]).encode()
    return b"".join([len(text).to_bytes(_LENGTH, "big"), text, *parts])


def _unpacked(packed: bytes) -> tuple[tuple[str, str] | None, dict[int, Entry]]:
    end = _LENGTH + int.from_bytes(packed[:_LENGTH], "big")
    failure, header = json.loads(packed[_LENGTH:end])
    found = {}
    for place, count, dtype, shape, flags, seconds in header:
        rows, end = _tensor(packed, end, torch.int64, [count])
        x_adv, end = _tensor(packed, end, _DTYPES[dtype], shape)
        found[place] = Entry(rows, x_adv, flags, seconds)
    return failure, found


def _bytes(value: Tensor) -> bytes:
    return value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def _tensor(packed: bytes, start: int, dtype: torch.dtype, shape: Sequence[int]) -> tuple[Tensor, int]:
    end = start + torch.Size(shape).numel() * dtype.itemsize
    # a copy, which nothing else writes into and which begins where the type wants it to
    value = torch.frombuffer(bytearray(packed[start:end]), dtype=dtype) if end > start else torch.empty(0, dtype=dtype)
    return value.reshape(shape), end
