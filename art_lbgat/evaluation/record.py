"""A record of finished batches in one file, so that a long evaluation that was killed goes on where it was.

SQLite keeps it: each batch is one transaction, which is there whole or not at all after a crash, and a second run on
the same file is locked out. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_APPLICATION = 0x4C424741  # "LBGA", at the place where SQLite files say whose they are
_FORMAT = 1


class Entry(NamedTuple):
    """What one batch of one attack found.

    :param rows: Which samples it concerns, int64, ``(k,)``: those broken (for ``"natural"`` those right).
    :param x_adv: Their adversarial examples, float32, ``(k, ...)``; for ``"natural"`` the logits of the first
        batch.
    :param flags: What was noticed, message by name.
    :param seconds: Seconds it took.
    """

    rows: Tensor
    x_adv: Tensor
    flags: Mapping[str, str]
    seconds: float


class Record:
    """Entries by the name of the part and the place within it; in memory only where there is no path.

    :param path: The file, made if it is not there; None keeps nothing.
    :param identity: What the entries belong to: a file of another identity is refused.
    :raises ValueError: If the file belongs to other weights, data or settings (they are named with both values), is
        damaged, or is no record; it is never changed then.
    :raises FileNotFoundError: If its directory does not exist.
    :raises BlockingIOError: If another run has it open.
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None and not self._path.parent.is_dir():
            raise FileNotFoundError(f"state_path: there is no directory {self._path.parent} for {self._path.name}.")
        try:
            self._database = sqlite3.connect(self._path or ":memory:", timeout=0, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise OSError(f"state_path: {self._path} cannot be used ({error}).") from error
        except ValueError as error:  # NUL
            raise ValueError(f"state_path: expected the path of a file, got {str(path)!r} ({error}).") from error
        try:
            self._open(json.loads(json.dumps(identity)))
        except sqlite3.OperationalError as error:
            self.close()
            if "locked" in str(error):
                raise BlockingIOError(f"state_path: another run has {self._path} open.") from error
            raise OSError(f"state_path: {self._path} cannot be used ({error}).") from error
        except sqlite3.DatabaseError as error:
            self.close()
            raise ValueError(
                f"state_path: {self._path} is damaged or no record of a run ({error}); delete it to start anew."
            ) from error
        except BaseException:
            self.close()
            raise

    def _open(self, identity: dict[str, Any]) -> None:
        execute = self._database.execute
        execute("PRAGMA trusted_schema = OFF")  # what a file of another's defines calls nothing
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("BEGIN EXCLUSIVE")  # takes the lock, which is then held until the file is closed
        (application,), (version,) = (
            execute("PRAGMA application_id").fetchone(),
            execute("PRAGMA user_version").fetchone(),
        )
        if application == 0 and not execute("SELECT name FROM sqlite_master").fetchall():
            execute(f"PRAGMA application_id = {_APPLICATION}")
            execute(f"PRAGMA user_version = {_FORMAT}")
            execute("CREATE TABLE identity (json TEXT NOT NULL)")
            execute(
                "CREATE TABLE entry (part TEXT, place INTEGER, rows BLOB, x_adv BLOB, shape TEXT, flags TEXT, "
                "seconds REAL, sha256 TEXT, PRIMARY KEY (part, place))"
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
        execute("SELECT rows, x_adv, shape, flags, seconds, sha256 FROM entry LIMIT 0")
        try:
            found = dict(json.loads(execute("SELECT json FROM identity").fetchone()[0]))
        except (ValueError, TypeError) as error:
            raise sqlite3.DatabaseError(str(error)) from error
        if found != identity:
            names = [name for name in {**found, **identity} if found.get(name) != identity.get(name)]
            changes = "; ".join(f"{name}: recorded {found.get(name)!r}, now {identity.get(name)!r}" for name in names)
            raise ValueError(
                f"state_path: {self._path} belongs to another run, so going on would mix two ({changes}). Take another "
                "path, or delete the file."
            )

    def get(self, part: str, place: int = 0) -> Entry | None:
        """The entry of a part, or None if it was not finished.

        :param part: Name of the part.
        :param place: Which of the entries of that part.
        :raises ValueError: If its bytes are not those that were written.
        """
        row = self._database.execute(
            "SELECT rows, x_adv, shape, flags, seconds, sha256 FROM entry WHERE part = ? AND place = ?", [part, place]
        ).fetchone()
        if row is None:
            return None
        rows, x_adv, shape, flags, seconds, digest = row
        try:
            if digest != _digest(rows, x_adv, shape, flags):
                raise ValueError("other bytes than were written")
            return Entry(
                torch.from_numpy(np.frombuffer(rows, dtype=np.int64).copy()),
                torch.from_numpy(np.frombuffer(x_adv, dtype=np.float32).copy().reshape(json.loads(shape))),
                dict(json.loads(flags)),
                float(seconds),
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"state_path: {self._path} is damaged at {part} {place}; delete it to start anew ({error})."
            ) from error

    def add(self, part: str, entry: Entry, place: int = 0) -> Entry:
        """Keep a finished entry; when this returns it is on disk.

        :param part: Name of the part.
        :param entry: What was found.
        :param place: Which of the entries of that part.
        :raises OSError: If it cannot be written (a full disk); what was there before is intact.
        """
        rows = entry.rows.cpu().numpy().astype(np.int64).tobytes()
        x_adv = entry.x_adv.detach().cpu().contiguous().numpy().astype(np.float32).tobytes()
        shape, flags = json.dumps(list(entry.x_adv.shape)), json.dumps(dict(entry.flags))
        values = [part, place, rows, x_adv, shape, flags, entry.seconds, _digest(rows, x_adv, shape, flags)]
        try:
            self._database.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        except sqlite3.OperationalError as error:
            raise OSError(f"state_path: {self._path} cannot be written ({error}).") from error
        return entry

    def close(self) -> None:
        """Give the file back."""
        self._database.close()

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _digest(*parts: bytes | str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
