"""Checkpoints: one safetensors file each, there whole or not at all, verified when read, never unpickled.

``step-000000123.safetensors`` holds the tensors of a run by their path; the JSON in its header holds everything else,
the settings of the run, and a SHA-256 over all of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from art_lbgat.checks import check_count
from art_lbgat.files import write_bytes
from art_lbgat.fingerprint import MAY_CHANGE, differences

logger = logging.getLogger(__name__)

FORMAT = "2"
INTERRUPTED = "interrupted.json"
_NAME = re.compile(r"step-(\d{9})\.safetensors")
_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?")
_SCALARS = (bool, int, float, str, type(None))


class Checkpoint(NamedTuple):
    """What was read: the file, steps of the run until then, its state, and the facts beside it (settings, versions)."""

    path: Path
    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


def write_checkpoint(root: Path, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    """Write a checkpoint; when this returns it is on the disk, and until then the older ones are all there is.

    :raises TypeError: If the state holds what cannot be kept (see :func:`pack`), with its path.
    :raises OSError: If it cannot be written (a full disk, a directory that is gone); nothing of it is left.
    """
    tensors, tree = pack(state)
    # Clones, since the format takes neither shared memory nor other memory formats.
    plain = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    header = {"format": FORMAT, "step": str(step), "state": json.dumps(tree), "facts": json.dumps(dict(facts))}
    path = root / f"step-{step:09d}.safetensors"
    write_bytes(path, save(plain, {**header, "sha256": _sha256(header, plain)}))
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint, tensors on the CPU.

    :raises ValueError: If it is damaged, incomplete, foreign or of another format; the file and the reason are named.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory, as earlier versions wrote checkpoints; this version cannot read it.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        header = dict(json.loads(data[8:end])["__metadata__"])
        expected = header.pop("sha256")
        if header["format"] != FORMAT:
            raise ValueError(f"{path} has format {header['format']!r}, this version reads format {FORMAT!r}.")
        tensors = load(data)
        if _sha256(header, tensors) != expected:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the one in its header.")
        state, facts, step = unpack(json.loads(header["state"]), tensors), json.loads(header["facts"]), header["step"]
        named = _NAME.fullmatch(path.name)
        if named is None or int(named[1]) != int(step):
            raise ValueError(f"{path} holds step {step}; it was renamed.")
        return Checkpoint(path, int(step), state, facts)
    except Exception as error:  # safetensors raises types of its own, a forged header any
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or no checkpoint ({type(error).__name__}: {error}).") from error


def checkpoints(root: Path) -> list[Path]:
    """The checkpoints in a directory, newest first, not verified; those of earlier versions are directories."""
    return sorted((path for path in root.glob("step-*")), reverse=True)


def read_newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, None if there is none; a damaged one is named in a warning.

    :raises ValueError: If there are some and none can be used.
    """
    reasons = []
    for path in checkpoints(root):
        try:
            return read_checkpoint(path)
        except ValueError as error:  # noqa: PERF203 (once per damaged file)
            reasons.append(str(error))
            logger.warning("checkpoint passed over: %s", error)
    if reasons:
        raise ValueError(f"checkpoint_dir: none of the {len(reasons)} checkpoints in {root} can be used: {reasons[0]}")
    return None


def pack(tree: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by their path, and everything else as JSON that says where they were.

    Taken are dictionaries and counters with text or whole numbers as keys, lists, tuples, tensors, numpy arrays,
    numbers, text and None, nested; :func:`unpack` gives back the same types.

    :raises TypeError: Anything else, with its path.
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, where: str) -> dict[str, Any]:
        if isinstance(value, Tensor):
            tensors[where or "."] = value.detach()
            return {"tensor": where or "."}
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[where or "."] = torch.from_numpy(_as_torch_holds(value))
            return {"array": where or ".", "dtype": str(value.dtype)}
        if isinstance(value, np.generic):
            return encode(value.item(), where)
        if type(value) in _SCALARS:
            return {"value": value}
        if isinstance(value, Mapping):
            for key in value:
                if type(key) not in (str, int):
                    raise TypeError(f"{where or '.'}: expected text or whole numbers as keys, got {key!r}.")
            kind = "counter" if type(value) is Counter else "dict"  # milestones of torch's schedulers are counters
            return {kind: [[key, encode(each, f"{where}/{key}")] for key, each in value.items()]}
        if type(value) in (list, tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [encode(each, f"{where}/{i}") for i, each in enumerate(value)]}
        raise TypeError(f"{where or '.'}: {type(value).__module__}.{type(value).__qualname__} cannot be kept as data.")

    return tensors, encode(tree, "")


def unpack(tree: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`pack` was given, mappings as dictionaries."""
    ((kind, value), *_) = tree.items()
    if kind == "value":
        return value
    if kind == "tensor":
        return tensors[value]
    if kind == "array":
        return tensors[value].numpy().astype(tree["dtype"])
    if kind in ("dict", "counter"):
        pairs = {key: unpack(each, tensors) for key, each in value}
        return Counter(pairs) if kind == "counter" else pairs
    values = [unpack(each, tensors) for each in value]
    return values if kind == "list" else tuple(values)


def _as_torch_holds(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array in a type that safetensors keeps and that holds all its values."""
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        return value.view(f"i{value.dtype.itemsize}") if value.dtype.itemsize == 8 else value.astype(np.int64)
    return np.ascontiguousarray(value)


def _sha256(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return digest.hexdigest()


def parse_every(value: int | str, name: str = "checkpoint_every") -> dict[str, float]:
    """``{"epoch": 1, "minute": 10}`` of ``"1 epoch, 10 minutes"``; a whole number counts epochs."""
    if not isinstance(value, str):
        return {"epoch": check_count(value, name)}
    every: dict[str, float] = {}
    for part in value.split(","):
        found = _EVERY.fullmatch(part.strip())
        if not found or float(found[1]) == 0 or (found[2] != "minute" and "." in found[1]):
            raise ValueError(
                f"{name}: expected a number of epochs, or text such as '2 epochs', '500 steps' or '1 epoch, 10 "
                f"minutes', got {value!r}."
            )
        every[found[2]] = float(found[1])
    return every


class Checkpoints:
    """The directory of one run's checkpoints: from which one it goes on, when the next is due, what is kept."""

    def __init__(self, root: Path, fit: int, settings: Mapping[str, Any], surroundings: Mapping[str, Any]) -> None:
        self.root, self._fit = root, fit
        self._facts = json.loads(json.dumps({"settings": settings, "surroundings": surroundings}))
        self._written_at = time.monotonic()  # not the time of day, which may be set back
        self._steps = self._epochs = 0

    def find(self, resume: Any) -> Checkpoint | None:
        """The checkpoint that the run goes on from, as ``resume`` asks, or None to start at the first step.

        :raises FileNotFoundError: ``resume="must"`` where there is none, or a path that is not there.
        :raises ValueError: ``resume="never"`` where there are some, a path with newer ones beside it, damage, other
            settings.
        """
        there = checkpoints(self.root)
        if resume == "never":
            if there:
                raise ValueError(
                    f"resume: 'never', but {self.root} holds checkpoints of a run, which would be lost; expected an "
                    "empty checkpoint_dir, or resume='auto' to go on."
                )
            return None
        found = self._given(Path(resume), there) if resume not in ("auto", "must") else None
        if found is None:
            found = read_newest(self.root)
            if found is None and resume == "must" and not list(self.root.parent.glob("fit-*/step-*")):
                raise FileNotFoundError(f"resume: 'must', but there is no checkpoint in {self.root.parent}.")
        if found is not None:
            self._check_same_run(found)
        return found

    def _given(self, path: Path, there: list[Path]) -> Checkpoint | None:
        """The checkpoint of a path; None where it is of another fit, or this run has gone on from it already."""
        if not path.exists():
            raise FileNotFoundError(
                f"resume: expected 'auto', 'must', 'never' or the path of a checkpoint, got {path}."
            )
        found = read_checkpoint(path) if path.name.startswith("step-") else read_newest(path)
        if found is None:
            raise FileNotFoundError(f"resume: there is no checkpoint in {path}.")
        if found.state.get("fit") != self._fit:
            return None
        if found.path.resolve().parent != self.root.resolve():
            return None if there else found
        newer = [each.name for each in there if each.name > found.path.name]
        if newer:
            raise ValueError(
                f"resume: {found.path} is older than {newer[0]} in {self.root}, which the run would overwrite; "
                "expected another checkpoint_dir, or resume='auto' to go on from the newest."
            )
        return found

    def _check_same_run(self, found: Checkpoint) -> None:
        if "models" not in found.state:
            raise ValueError(f"resume: {found.path} is no checkpoint of a run: it lacks models.")
        changed = differences(found.facts.get("settings"), self._facts["settings"])
        if changed:
            raise ValueError(
                f"resume: the settings are not those of {found.path}: {'; '.join(changed)}. What may change: "
                f"{', '.join(MAY_CHANGE)}. Take another checkpoint_dir for another run."
            )
        around = differences(found.facts.get("surroundings"), self._facts["surroundings"])
        if around:
            logger.warning("resume: the last bits may differ from a run never stopped: %s.", "; ".join(around))

    def went_on_from(self, used: Checkpoint) -> None:
        """Rename what is newer than the checkpoint that is used: it is damaged, and would stay the newest."""
        (self.root / INTERRUPTED).unlink(missing_ok=True)
        if used.path.parent.resolve() != self.root.resolve():
            return
        for path in checkpoints(self.root):
            if path.name > used.path.name:
                aside = path.with_name(f"damaged-{path.name}")
                path.replace(aside)
                logger.warning("checkpoint set aside as %s.", aside)

    def due(self, every: Mapping[str, float], *, epoch_ended: bool) -> bool:
        """Whether one is to be written now; asked once after each step and once after each epoch."""
        self._epochs += epoch_ended
        self._steps += not epoch_ended
        minutes = (time.monotonic() - self._written_at) / 60
        return (
            (epoch_ended and self._epochs >= every.get("epoch", float("inf")))
            or (not epoch_ended and self._steps >= every.get("step", float("inf")))
            or minutes >= every.get("minute", float("inf"))
        )

    def write(self, step: int, state: Mapping[str, Any], keep: int) -> None:
        """Write a checkpoint, and delete all but the newest ``keep``.

        :raises OSError: If it could not be written; the ones before are intact.
        """
        try:
            write_checkpoint(self.root, step, state, {**self._facts, "written": time.time()})
        except OSError as error:
            there = checkpoints(self.root)
            what = "the ones before it are intact, and the run goes on from the newest when it is started again"
            raise OSError(
                f"checkpoint_dir: a checkpoint could not be written to {self.root} ({error.strerror or error}); "
                f"{what if there else 'there are none there any more'}."
            ) from error
        self._steps = self._epochs = 0
        self._written_at = time.monotonic()
        prune(self.root, keep)

    def keep_guides(self, states: Mapping[str, Any]) -> None:
        """Write the weights of frozen guides, once for the whole run, beside its checkpoints."""
        tensors = {f"{name}.{key}": value.cpu().clone() for name, each in states.items() for key, value in each.items()}
        write_bytes(self.root / "guides.safetensors", save(tensors))

    def note_interruption(self, what: Mapping[str, Any]) -> None:
        """A file that says how the run ended, since a launcher may hide the exit code."""
        (self.root / INTERRUPTED).write_text(json.dumps(dict(what), indent=2) + "\n", encoding="utf-8")


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest checkpoints, and what writes that were killed have left."""
    for path in [*checkpoints(root)[keep:], *root.glob(".step-*")]:
        path.unlink(missing_ok=True)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """A directory for one run alone, made if it is not there; a run that was killed leaves no lock.

    :raises PermissionError: If it cannot be written to.
    :raises BlockingIOError: If another run has it.
    """
    from filelock import FileLock, Timeout

    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / ".step-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PermissionError(f"checkpoint_dir: {root} cannot be written to ({error.strerror}).") from error
    lock = FileLock(root / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(f"checkpoint_dir: another run is using {root}.") from error
    try:
        yield
    finally:
        lock.release()
