"""Checkpoints on disk: there whole or not at all, verified when read, never unpickled.

A checkpoint is a directory ``step-000000123`` of safetensors files, a ``state.json`` and a ``manifest.json`` with the
SHA-256 of each. It is written under another name, flushed to the disk and renamed, so that a crash leaves the old ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save_file

from art_lbgat.engine.tree import put_together, take_apart

logger = logging.getLogger(__name__)

FORMAT = 1
_PREFIX, _TEMPORARY, _LOCK = "step-", ".tmp-", ".lock"
_NAME = re.compile(rf"{_PREFIX}(\d{{9}})(?:-\d{{3}})?")
_MANIFEST, _SEAL, _STATE = "manifest.json", "manifest.sha256", "state.json"


class Checkpoint(NamedTuple):
    """What was read.

    :param path: Its directory.
    :param step: Steps of the run until then.
    :param parts: The trees by name.
    :param facts: What was noted beside them: configuration, versions, score.
    """

    path: Path
    step: int
    parts: dict[str, Any]
    facts: dict[str, Any]


def write_checkpoint(root: Path, step: int, parts: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
    """Write a checkpoint; when this returns it is on the disk, and until then the older ones are all there is.

    :param root: The directory of the run's checkpoints, which exists.
    :param step: Steps of the run so far; another of the same step gets a number behind its name, and is the newer.
    :param parts: Trees by name (see :mod:`art_lbgat.engine.tree`); each gets a file of tensors.
    :param facts: JSON that is kept in the manifest.
    :return: Its directory.
    :raises TypeError: If a part holds what cannot be kept.
    :raises OSError: If it cannot be written (a full disk, a directory that is gone); nothing of it is left.
    """
    apart = {name: take_apart(tree) for name, tree in parts.items()}
    temporary = root / f"{_TEMPORARY}{uuid.uuid4().hex}"
    try:
        temporary.mkdir()
        for name, (tensors, _) in apart.items():
            # Clones, since the format takes neither shared memory nor other memory formats.
            plain = {key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
            save_file(plain, temporary / f"{name}.safetensors")
        (temporary / _STATE).write_text(json.dumps({name: tree for name, (_, tree) in apart.items()}), encoding="utf-8")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in temporary.iterdir()}
        manifest = {"format": FORMAT, "step": step, "facts": dict(facts), "files": files}
        (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        (temporary / _SEAL).write_text(_sha256(temporary / _MANIFEST), encoding="utf-8")
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        # A directory cannot be renamed onto another, and must not be gone for a moment: a second one of a step is
        # written beside the first, under a name that sorts after it.
        same = sorted(path.name for path in root.glob(f"{_PREFIX}{step:09d}*"))
        last = int(same[-1].partition("-")[2].partition("-")[2] or 0) if same else -1
        target = root / (f"{_PREFIX}{step:09d}-{last + 1:03d}" if same else f"{_PREFIX}{step:09d}")
        temporary.rename(target)
        _flush(root)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, (TypeError, OSError)):
            raise
        raise OSError(f"checkpoint_dir: the checkpoint of step {step} cannot be written ({error}).") from error
    return target


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify one checkpoint.

    :param path: Its directory.
    :return: What it holds, tensors on the CPU.
    :raises ValueError: If it is damaged, incomplete, foreign or of a newer format; the file and the reason are named.
    """
    manifest = _manifest(path)
    contents: dict[str, bytes] = {}
    try:
        for name, expected in manifest["files"].items():
            file = path / Path(name).name  # a name with a directory in it leads nowhere else
            contents[name] = _bytes(file)
            if len(contents[name]) != expected["bytes"]:
                raise ValueError(
                    f"{file} is damaged: it has {len(contents[name])} bytes instead of {expected['bytes']}."
                )
            if hashlib.sha256(contents[name]).hexdigest() != expected["sha256"]:
                raise ValueError(f"{file} is damaged: its SHA-256 is not that of the manifest.")
        trees = json.loads(contents[_STATE])
        parts = {name: put_together(tree, load(contents[f"{name}.safetensors"])) for name, tree in trees.items()}
    except Exception as error:  # safetensors raises types of its own, a forged manifest any
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is no checkpoint of this format ({type(error).__name__}: {error}).") from error
    return Checkpoint(path, manifest["step"], parts, manifest["facts"])


def checkpoints(root: Path) -> list[Path]:
    """The directories of the checkpoints there are, newest first, not verified.

    :param root: The directory that holds them.
    """
    return sorted((path for path in root.glob(f"{_PREFIX}*") if path.is_dir()), reverse=True)


def read_newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; what is damaged is named in a warning and passed over.

    :param root: The directory of the run's checkpoints.
    :return: The checkpoint, or None if there is none at all.
    :raises ValueError: If there are some and all are damaged.
    """
    reasons = []
    for path in checkpoints(root):
        found = _read_or_reason(path)
        if isinstance(found, Checkpoint):
            return found
        reasons.append(found)
        logger.warning("checkpoint passed over: %s", found)
    if reasons:
        raise ValueError(f"checkpoint_dir: none of the {len(reasons)} checkpoints in {root} can be used: {reasons[0]}")
    return None


def set_aside_newer(root: Path, used: Path) -> None:
    """Rename the checkpoints that are newer than the one a run goes on from: they are damaged, or of another course.

    Otherwise they would stay the newest, and pruning would keep them rather than what the run writes from now on.

    :param root: The directory of the run's checkpoints.
    :param used: The checkpoint that is used.
    """
    for path in checkpoints(root):
        if path.name > used.name:
            aside = root / f"damaged-{path.name}-{uuid.uuid4().hex[:8]}"
            path.rename(aside)
            logger.warning("checkpoint set aside as %s.", aside)


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest checkpoints, and what writes that were killed have left.

    :param root: The directory of the run's checkpoints.
    :param keep: How many to keep, at least 1.
    """
    for path in [*checkpoints(root)[keep:], *root.glob(f"{_TEMPORARY}*")]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """The directory for one run alone, made if it is not there; a run that was killed leaves no lock.

    :param root: The directory of the run's checkpoints.
    :raises PermissionError: If it cannot be written to.
    :raises BlockingIOError: If another run has it.
    """
    from filelock import FileLock, Timeout

    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f"{_TEMPORARY}{uuid.uuid4().hex}"
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise PermissionError(f"checkpoint_dir: {root} cannot be written to ({error.strerror}).") from error
    lock = FileLock(root / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(f"checkpoint_dir: another run is using {root}.") from error
    try:
        yield
    finally:
        lock.release()


def _read_or_reason(path: Path) -> Checkpoint | str:
    try:
        return read_checkpoint(path)
    except ValueError as error:
        return str(error)


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, verified by its seal and by the name of the directory."""
    body, seal = _bytes(path / _MANIFEST), _bytes(path / _SEAL)
    if hashlib.sha256(body).hexdigest().encode() != seal:
        raise ValueError(f"{path / _MANIFEST} is damaged: its SHA-256 is not that in {_SEAL}.")
    try:
        manifest: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path / _MANIFEST} is no manifest of a checkpoint ({error}).") from error
    if not isinstance(manifest, dict) or not {"format", "step", "facts", "files"} <= manifest.keys():
        raise ValueError(f"{path / _MANIFEST} is no manifest of a checkpoint.")
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path} has format {manifest['format']!r}, this version reads format {FORMAT}.")
    named = _NAME.fullmatch(path.name)
    if not isinstance(manifest["step"], int) or named is None or int(named[1]) != manifest["step"]:
        raise ValueError(f"{path} holds step {manifest['step']!r}; it was renamed, or its content is another's.")
    return manifest


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
