"""What a long evaluation has finished: kept in a directory, a file a batch, and shared by its processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from art_lbgat.checks import check_path
from art_lbgat.classifier import TensorView
from art_lbgat.engine.checkpoint import checkpoint_path, locked, read_checkpoint, write_checkpoint
from art_lbgat.files import write_text
from art_lbgat.fingerprint import module_layout, sha256_of, weights_sha256
from art_lbgat.processes import Processes, join_processes

T = TypeVar("T")
_IDENTITY = "run.json"
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ValueError, TypeError, OSError, FileNotFoundError, PermissionError, BlockingIOError, ImportError)
}


def model_identity(view: TensorView) -> dict[str, str]:
    """What decides the bits of the logits, by name, but for the number of threads."""
    defences = [*view.operations, *(view.classifier.postprocessing_defences or [])]
    operations = [
        [type(operation).__qualname__, [(name, _plain(getattr(operation, name, None))) for name in operation.params]]
        for operation in defences
    ]
    clip_values = view.classifier.clip_values
    bounds = None if clip_values is None else [_plain(value) for value in clip_values]
    layers = module_layout(view.module), operations, bounds
    return {
        "weights": weights_sha256(view.module),
        "layers and preprocessing": sha256_of([repr(layers)]),
        "torch": torch.__version__,
        "device": view.device.type,
    }


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic, Tensor)) else repr(value)


class Entry(NamedTuple):
    """What one batch of one attack found."""

    rows: Tensor  # the samples it concerns, int64 (k,): those broken, for "natural" those right
    x_adv: Tensor  # their adversarial examples (k, ...); for "natural" the logits of the first batch
    flags: Mapping[str, str]
    seconds: float


Found = Mapping[int, Entry]  # by the place of the batch


class Record(AbstractContextManager["Record"]):
    """Entries by part and place: files of a checkpoint's format, ``<path>/<part>/step-<place>.safetensors``.

    In memory without a path. A directory in use or of another run is refused, a damaged file when it is read.
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        self._memory: dict[tuple[str, int], Entry] = {}
        self._root, self._lock = None if path is None else check_path(path, "state_path"), ExitStack()
        if self._root is not None:
            if self._root.is_file():
                raise ValueError(f"state_path: expected a directory, got the file {self._root}.")
            if not self._root.parent.is_dir():
                raise FileNotFoundError(f"state_path: there is no directory {self._root.parent} for {self._root.name}.")
            with self._lock:  # left with the lock held where nothing is refused
                self._lock.enter_context(locked(self._root, "state_path"))
                _check_run(self._root, json.loads(json.dumps(identity)))
                self._lock = self._lock.pop_all()

    def get(self, part: str, place: int = 0) -> Entry | None:
        """The entry at a place of a part, or None if it was not finished."""
        if self._root is None:
            return self._memory.get((part, place))
        path = checkpoint_path(self._root / part, place)
        if not path.exists():
            return None
        try:
            return Entry(**read_checkpoint(path).state)
        except (ValueError, TypeError) as error:
            raise ValueError(f"state_path: {path}: {error} Delete it to have its batch evaluated again.") from error

    def add(self, part: str, entry: Entry, place: int = 0) -> Entry:
        """Keep a finished entry; when this returns it is on disk. OSError if it is not, what was there is intact."""
        if self._root is None:
            self._memory[part, place] = entry
            return entry
        try:
            (self._root / part).mkdir(exist_ok=True)
            write_checkpoint(self._root / part, place, entry._asdict(), {})
        except OSError as error:
            raise OSError(f"state_path: {self._root} cannot be written ({error}).") from error
        return entry

    def __exit__(self, *error: object) -> None:
        self._lock.close()


def _check_run(root: Path, identity: Mapping[str, Any]) -> None:
    """Write down which run a new directory is of; refuse that of another."""
    path = root / _IDENTITY
    if not path.exists():
        if any(root.glob("[!.]*")):
            raise ValueError(f"state_path: {root} holds something else; expected a new or empty directory.")
        write_text(path, json.dumps(identity))
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"state_path: {path} is damaged ({error}); delete {root} to start anew.") from error
    if changes := _changes(found, identity, "recorded {!r}, now {!r}"):
        raise ValueError(
            f"state_path: {root} belongs to another run, so to resume it would mix two ({changes}). Take another "
            "path, or delete the directory."
        )


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], form: str) -> str:
    """Each difference of two identities in the form, which takes the old and the new value."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {form.format(old.get(name), new.get(name))}" for name in names)


@contextmanager
def sharing(device: torch.device) -> Iterator[Sharing]:
    """The processes that run this evaluation together; all have to come here, RuntimeError if one has ended."""
    processes = join_processes(device)
    with processes.gathering() as gathered:
        yield Sharing(processes, gathered)


class Sharing:
    """What several processes do together: what one of them cannot do, none does. One process exchanges nothing."""

    def __init__(self, processes: Processes, gathered: Callable[[Any], list[Any]]) -> None:
        self.rank, self.world, self.is_main = processes.rank, processes.world, processes.is_main
        self._gathered = gathered

    def agree(self, facts: Mapping[str, Any]) -> None:
        """ValueError in every process, unless all run the same thing in the same way, as these facts say."""
        everyones = self._gathered(dict(facts))
        for rank, theirs in enumerate(everyones):
            if changes := _changes(everyones[0], theirs, "{!r} and {!r}"):
                raise ValueError(
                    f"processes: expected the same model, data and settings in all {self.world}, but process 0 and "
                    f"process {rank} differ ({changes})."
                )

    def each(self, work: Callable[[], Found]) -> dict[int, Entry]:
        """What the work of each process found, known to all; where it raises in one, an error says so in all."""
        raised: Exception | None = None
        mine: dict[int, Entry] = {}
        try:
            mine = dict(work())
        except Exception as error:
            raised = error
        everyones = self._gathered((mine, None if raised is None else (type(raised).__name__, str(raised))))
        if raised is not None:
            raise raised
        for rank, (_, failure) in enumerate(everyones):
            if failure is not None:
                kind, message = failure
                raise _ERRORS.get(kind, RuntimeError)(f"{message} (raised by process {rank} of {self.world})")
        return {place: entry for found, _ in reversed(everyones) for place, entry in found.items()}

    def every(self, work: Callable[[], T]) -> T:
        """What the work makes in this process, once it is done in all; where it fails in one, it fails in all."""
        made: list[T] = []

        def done() -> Found:
            made.append(work())
            return {}

        self.each(done)
        return made[0]

    def main_first(self, work: Callable[[], T]) -> T:
        """Work that may write files: the main process does it, then the others, which find these there."""
        made = self.every(lambda: work() if self.is_main else None)
        return work() if made is None else made

    def recorded(self, record: Record, part: str, places: Sequence[int]) -> dict[int, Entry]:
        """The entries that the record of the main process has at these places, known to all."""
        there = places if self.is_main else ()
        return self.each(lambda: {place: found for place in there if (found := record.get(part, place)) is not None})

    def round(self, record: Record, part: str, places: Sequence[int], work: Callable[[int], Entry]) -> list[Entry]:
        """The entries at the places, one for each process at most: from the record, or made and added to it."""
        known = self.recorded(record, part, places)
        missing = [place for place in places if place not in known]
        if missing:
            made = self.each(lambda: {place: work(place) for place in missing[self.rank : self.rank + 1]})
            kept = missing if self.is_main else []
            self.every(lambda: [record.add(part, made[place], place) for place in kept])
            known |= made
        return [known[place] for place in places]
