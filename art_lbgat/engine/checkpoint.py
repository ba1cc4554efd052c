"""Checkpoints: one safetensors file each, there whole or not at all, verified when read, never unpickled.

``step-000000123.safetensors`` holds the tensors of a run by their path; the JSON in its header holds everything else,
the settings of the run, and a SHA-256 over all of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import tempfile
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
_EVERY = re.compile(r"(\d+(?:\.\d+)?)\s*(epoch|step|minute)s?")


class Checkpoint(NamedTuple):
    """What was read: the file, steps of the run until then, its state, and the facts beside it (settings, versions)."""

    path: Path
    step: int
    state: dict[str, Any]
    facts: dict[str, Any]


def checkpoint_path(root: Path, step: int) -> Path:
    """The file of the checkpoint after so many steps."""
    return root / f"step-{step:09d}.safetensors"


def write_checkpoint(root: Path, step: int, state: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    """Write a checkpoint: on the disk when this returns, and nothing of it is left if it cannot be written."""
    tensors, tree = pack(state)
    # Clones, since the format takes neither shared memory nor other memory formats.
    plain = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    header = {"format": FORMAT, "step": str(step), "state": json.dumps(tree), "facts": json.dumps(dict(facts))}
    path = checkpoint_path(root, step)
    write_bytes(path, save(plain, {**header, "sha256": _sha256(header, plain)}))
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint, tensors on the CPU; a ValueError names the file and what is wrong with it."""
    if path.is_dir():
        raise ValueError(f"{path} is a directory, as earlier versions wrote checkpoints; this version cannot read it.")
    try:
        data = path.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = dict(json.loads(data[8:end])["__metadata__"])
        expected = header.pop("sha256")
        if header["format"] != FORMAT:
            raise ValueError(f"{path} has format {header['format']!r}, this version reads format {FORMAT!r}.")
        tensors = load(data)
        if _sha256(header, tensors) != expected:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the one in its header.")
        step = int(header["step"])
        if path != checkpoint_path(path.parent, step):
            raise ValueError(f"{path} holds step {step}; it was renamed.")
        return Checkpoint(path, step, unpack(json.loads(header["state"]), tensors), json.loads(header["facts"]))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    except Exception as error:  # safetensors raises types of its own, a forged header any
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is damaged, or no checkpoint ({type(error).__name__}: {error}).") from error


def checkpoints(root: Path) -> list[Path]:
    """The checkpoints in a directory, newest first, not verified; those of earlier versions are directories."""
    return sorted(root.glob("step-*"), reverse=True)


def read_newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is named in a warning, and it is an error if all are."""
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
    """Tensors by their path, and everything else as JSON that says where they were; see :func:`unpack`.

    Taken are dictionaries and counters with text or whole numbers as keys, lists, tuples, tensors, numpy arrays,
    numbers, text and None, nested; anything else is a TypeError with its path.
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, path: str) -> dict[str, Any]:
        name = path or "."
        if isinstance(value, Tensor):
            tensors[name] = value.detach()
            return {"tensor": name}
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[name] = torch.from_numpy(_as_torch_holds(value))
            return {"array": name, "dtype": str(value.dtype)}
        if isinstance(value, np.generic):
            return encode(value.item(), path)
        if type(value) in (bool, int, float, str, type(None)):
            return {"value": value}
        if type(value) in (list, tuple):
            return {type(value).__name__: [encode(each, f"{path}/{i}") for i, each in enumerate(value)]}
        if not isinstance(value, Mapping):
            raise TypeError(f"{name}: {type(value).__module__}.{type(value).__qualname__} cannot be kept as data.")
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{name}: expected text or whole numbers as keys, got {key!r}.")
        kind = "counter" if type(value) is Counter else "dict"  # milestones of torch's schedulers are counters
        return {kind: [[key, encode(each, f"{path}/{key}")] for key, each in value.items()]}

    return tensors, encode(tree, "")


def unpack(tree: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """What :func:`pack` was given, of the same types but for mappings, which are dictionaries."""
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
    if value.dtype == np.uint64:
        return value.view(np.int64)
    return value.astype(np.int64) if value.dtype in (np.uint16, np.uint32) else np.ascontiguousarray(value)


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
            expected = "a number of epochs, or text such as '2 epochs', '500 steps' or '1 epoch, 10 minutes'"
            raise ValueError(f"{name}: expected {expected}, got {value!r}.")
        every[found[2]] = float(found[1])
    return every


class Checkpoints:
    """The directory of one run's checkpoints: which one it resumes from, when the next is due, what is kept."""

    def __init__(self, root: Path, fit: int, settings: Mapping[str, Any], surroundings: Mapping[str, Any]) -> None:
        self.root, self._fit = root, fit
        self._facts = json.loads(json.dumps({"settings": settings, "surroundings": surroundings}))
        self._written_at = time.monotonic()  # not the time of day, which may be set back
        self._steps = self._epochs = 0

    def find(self, resume: Any) -> Checkpoint | None:
        """The checkpoint that the run resumes from, as ``resume`` asks, or None to start at the first step."""
        there = checkpoints(self.root)
        if resume == "never" and there:
            raise ValueError(
                f"resume: 'never', but {self.root} holds checkpoints of a run, which would be lost; expected an empty "
                "checkpoint_dir, or resume='auto' to resume it."
            )
        if resume == "never":
            return None
        found = None if resume in ("auto", "must") else self._given(Path(resume), there)
        found = found or read_newest(self.root)
        if found is None and resume == "must" and not list(self.root.parent.glob("fit-*/step-*")):
            raise FileNotFoundError(f"resume: 'must', but there is no checkpoint in {self.root.parent}.")
        if found is not None:
            self._check_same_run(found)
        return found

    def _given(self, path: Path, there: list[Path]) -> Checkpoint | None:
        """The checkpoint of a path; None where it is of another fit, or this run has resumed from it already."""
        if not path.exists():
            expected = "'auto', 'must', 'never' or the path of a checkpoint"
            raise FileNotFoundError(f"resume: expected {expected}, got {path}.")
        found = read_checkpoint(path) if path.name.startswith("step-") else read_newest(path)
        if found is None:
            raise FileNotFoundError(f"resume: there is no checkpoint in {path}.")
        elsewhere = found.path.resolve().parent != self.root.resolve()
        if found.state.get("fit") != self._fit or (elsewhere and there):
            return None
        if not elsewhere and there[0].name > found.path.name:
            raise ValueError(
                f"resume: {found.path} is older than {there[0].name} in {self.root}, which the run would overwrite; "
                "expected another checkpoint_dir, or resume='auto' to resume from the newest."
            )
        return found

    def _check_same_run(self, found: Checkpoint) -> None:
        if "models" not in found.state:
            raise ValueError(f"resume: {found.path} is no checkpoint of a run: it lacks models.")
        settings, around = (differences(found.facts.get(name), self._facts[name]) for name in self._facts)
        if settings:
            raise ValueError(
                f"resume: the settings are not those of {found.path}: {'; '.join(settings)}. What may change: "
                f"{', '.join(MAY_CHANGE)}. Take another checkpoint_dir for another run."
            )
        if around:
            logger.warning("resume: the last bits may differ from a run never stopped: %s.", "; ".join(around))

    def set_aside_newer(self, used: Checkpoint) -> None:
        """Rename what is newer than the checkpoint that is used: it is damaged, and would stay the newest."""
        (self.root / INTERRUPTED).unlink(missing_ok=True)
        for path in checkpoints(self.root):
            if used.path.parent.resolve() == self.root.resolve() and path.name > used.path.name:
                aside = path.replace(path.with_name(f"damaged-{path.name}"))
                logger.warning("checkpoint set aside as %s.", aside)

    def due(self, every: Mapping[str, float], *, epoch_ended: bool) -> bool:
        """Whether one is to be written now; asked once after each step and once after each epoch."""
        self._epochs += epoch_ended
        self._steps += not epoch_ended
        minutes = (time.monotonic() - self._written_at) / 60
        passed = {"minute": minutes, **({"epoch": self._epochs} if epoch_ended else {"step": self._steps})}
        return any(passed.get(unit, 0) >= number for unit, number in every.items())

    def write(self, step: int, state: Mapping[str, Any], keep: int) -> None:
        """Write a checkpoint, and delete all but the newest ``keep``."""
        try:
            write_checkpoint(self.root, step, state, {**self._facts, "written": time.time()})
        except OSError as error:
            what = f"checkpoint_dir: a checkpoint could not be written to {self.root} ({error.strerror or error})"
            left = "the ones before it are intact, and the run resumes from the newest when it is started again"
            raise OSError(f"{what}; {left if checkpoints(self.root) else 'there are none there any more'}.") from error
        self._steps = self._epochs = 0
        self._written_at = time.monotonic()
        prune(self.root, keep)

    def keep_guides(self, states: Mapping[str, Any]) -> None:
        """Write the weights of frozen guides, once for the whole run, beside its checkpoints."""
        held = {f"{name}.{key}": value for name, each in states.items() for key, value in each.items()}
        tensors = {k: v.cpu() for k, v in held.items() if isinstance(v, Tensor) and not v.is_quantized}
        # As in a checkpoint, since the guides may be in channels_last.
        plain = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        write_bytes(self.root / "guides.safetensors", save(plain))

    def note_interruption(self, what: Mapping[str, Any]) -> None:
        """A file that says how the run ended, since a launcher may hide the exit code."""
        (self.root / INTERRUPTED).write_text(json.dumps(dict(what), indent=2) + "\n", encoding="utf-8")


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest checkpoints, and what writes that were killed have left; never a directory."""
    files = [path for path in checkpoints(root) if path.is_file()]
    for path in [*files[keep:], *root.glob(".step-*")]:
        path.unlink(missing_ok=True)


@contextmanager
def locked(root: Path, name: str = "checkpoint_dir") -> Iterator[None]:
    """A directory for one run alone, made if it is not there; a run that was killed leaves no lock."""
    from filelock import FileLock, Timeout

    try:
        root.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=root, prefix=".step-").close()
        lock = FileLock(root / ".lock", timeout=0).acquire()
    except Timeout as error:
        raise BlockingIOError(f"{name}: another run is using {root}.") from error
    except OSError as error:
        raise PermissionError(f"{name}: {root} cannot be written to ({error.strerror}).") from error
    with lock:
        yield
