"""What a long evaluation has finished: kept in one SQLite file, a transaction a batch, and shared by its processes."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from art_lbgat.classifier import TensorView
from art_lbgat.fingerprint import module_layout
from art_lbgat.processes import Processes, join_processes

T = TypeVar("T")
_APPLICATION = 0x4C424741  # "LBGA", at the place where SQLite files say whose they are
_FORMAT = 2
_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (ValueError, TypeError, OSError, FileNotFoundError, PermissionError, BlockingIOError, ImportError)
}


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of the state dict: names, types, shapes and bytes, in order of the names, whatever the device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}\0".encode())
        if isinstance(value, Tensor):
            _add(digest, value)
        else:  # what get_extra_state gave
            digest.update(repr(value).encode())
    return digest.hexdigest()


def data_sha256(x: Tensor, y: Tensor) -> str:
    """SHA-256 of images and labels: types, shapes and bytes."""
    digest = hashlib.sha256()
    _add(digest, x)
    _add(digest, y)
    return digest.hexdigest()


def _add(digest: Any, value: Tensor) -> None:
    value = value.detach().cpu().contiguous()
    digest.update(f"{value.dtype}{tuple(value.shape)}\0".encode())
    if value.numel():  # as bytes, since some types (bfloat16) have no numpy counterpart
        digest.update(value.reshape(-1).view(torch.uint8).numpy())


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
        "layers and preprocessing": hashlib.sha256(repr(layers).encode()).hexdigest(),
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


def pack(found: Found, failure: tuple[str, str] | None = None) -> bytes:
    """Entries, and the kind and text of an error, as bytes that run nothing when they are read."""
    tensors = {}
    for place, entry in found.items():
        tensors[f"{place} rows"] = entry.rows.detach().to("cpu", torch.int64).contiguous()
        tensors[f"{place} x_adv"] = entry.x_adv.detach().cpu().contiguous()
    notes = {str(place): [dict(entry.flags), entry.seconds] for place, entry in found.items()}
    text = json.dumps([failure, notes]).encode()
    return save({**tensors, "notes": torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def unpack(packed: bytes) -> tuple[dict[int, Entry], tuple[str, str] | None]:
    """What was packed; one of several errors if it is something else."""
    tensors = load(packed)
    failure, notes = json.loads(bytes(tensors["notes"].numpy()))
    found = {
        int(place): Entry(tensors[f"{place} rows"], tensors[f"{place} x_adv"], dict(flags), float(seconds))
        for place, (flags, seconds) in notes.items()
    }
    return found, failure


class Record(AbstractContextManager["Record"]):
    """Entries by part and place; in memory without a path. A file in use, damaged or of another run is refused."""

    def __init__(self, path: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None and not self._path.parent.is_dir():
            raise FileNotFoundError(f"state_path: there is no directory {self._path.parent} for {self._path.name}.")
        with self._named_errors("used"):
            try:
                self._database = sqlite3.connect(self._path or ":memory:", timeout=0, isolation_level=None)
            except ValueError as error:  # NUL
                raise ValueError(f"state_path: expected the path of a file, got {str(path)!r} ({error}).") from error
            try:
                self._open(json.loads(json.dumps(identity)))
            except BaseException:
                self._database.close()
                raise

    def _open(self, identity: dict[str, Any]) -> None:
        execute = self._database.execute
        execute("PRAGMA trusted_schema = OFF")  # what a file of another's defines calls nothing
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("BEGIN EXCLUSIVE")  # takes the lock, which is then held until the file is closed
        (application,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        if application == 0 and not execute("SELECT name FROM sqlite_master").fetchall():
            execute(f"PRAGMA application_id = {_APPLICATION}")
            execute(f"PRAGMA user_version = {_FORMAT}")
            execute("CREATE TABLE identity (json TEXT NOT NULL)")
            execute(
                "CREATE TABLE entry (part TEXT, place INTEGER, content BLOB, sha256 TEXT, PRIMARY KEY (part, place))"
            )
            execute("INSERT INTO identity VALUES (?)", [json.dumps(identity)])
        elif application != _APPLICATION:
            raise ValueError(f"state_path: {self._path} is a database of something else.")
        elif version != _FORMAT:
            raise ValueError(f"state_path: {self._path} has format {version}, this version reads format {_FORMAT}.")
        execute("COMMIT")
        (damage,) = execute("PRAGMA quick_check").fetchone()
        if damage != "ok":
            raise sqlite3.DatabaseError(damage)
        others = {kind for (kind,) in execute("SELECT type FROM sqlite_master")} - {"table", "index"}
        if others:  # a view or a trigger would run what another wrote
            raise sqlite3.DatabaseError(f"it holds a {min(others)}")
        execute("SELECT content, sha256 FROM entry LIMIT 0")
        try:
            found = dict(json.loads(execute("SELECT json FROM identity").fetchone()[0]))
        except (ValueError, TypeError) as error:
            raise sqlite3.DatabaseError(str(error)) from error
        if changes := _changes(found, identity, "recorded {!r}, now {!r}"):
            raise ValueError(
                f"state_path: {self._path} belongs to another run, so going on would mix two ({changes}). Take another "
                "path, or delete the file."
            )

    def get(self, part: str, place: int = 0) -> Entry | None:
        """The entry at a place of a part, or None if it was not finished."""
        with self._named_errors("read"):
            row = self._database.execute(
                "SELECT content, sha256 FROM entry WHERE part = ? AND place = ?", [part, place]
            ).fetchone()
            if row is None:
                return None
            try:
                if hashlib.sha256(row[0]).hexdigest() != row[1]:
                    raise ValueError("other bytes than were written")
                return unpack(row[0])[0][place]
            except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
                raise sqlite3.DatabaseError(f"at {part} {place}: {error}") from error

    def add(self, part: str, entry: Entry, place: int = 0) -> Entry:
        """Keep a finished entry; when this returns it is on disk. OSError if it is not, what was there is intact."""
        content = pack({place: entry})
        with self._named_errors("written"):
            values = [part, place, content, hashlib.sha256(content).hexdigest()]
            self._database.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", values)
        return entry

    def __exit__(self, *error: object) -> None:
        self._database.close()

    @contextmanager
    def _named_errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise BlockingIOError(f"state_path: another run has {self._path} open.") from error
            raise OSError(f"state_path: {self._path} cannot be {done} ({error}).") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"state_path: {self._path} is damaged or no record of a run ({error}); delete it to start anew."
            ) from error


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

    def __init__(self, processes: Processes, gathered: Callable[[bytes], list[bytes]]) -> None:
        self.rank, self.world, self.is_main = processes.rank, processes.world, processes.is_main
        self._gathered = gathered

    def agree(self, facts: Mapping[str, Any]) -> None:
        """ValueError in every process, unless all run the same thing in the same way, as these facts (JSON) say."""
        everyones = [json.loads(each) for each in self._gathered(json.dumps(facts).encode())]
        for rank, theirs in enumerate(everyones):
            if changes := _changes(everyones[0], theirs, "{!r} and {!r}"):
                raise ValueError(
                    f"processes: expected the same model, data and settings in all {self.world}, but process 0 and "
                    f"process {rank} differ ({changes})."
                )

    def each(self, work: Callable[[], Found]) -> dict[int, Entry]:
        """What the work of each process found, known to all; where it raises in one, an error says so in all."""
        if self.world == 1:
            return dict(work())
        raised: Exception | None = None
        try:
            mine = pack(work())
        except Exception as error:
            raised, mine = error, pack({}, (type(error).__name__, str(error)))
        everyones = [unpack(each) for each in self._gathered(mine)]
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
