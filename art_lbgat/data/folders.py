"""Folders of pictures: which of them are parts and classes, and splits that follow from the content of each file."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from art_lbgat.checks import check_utf8
from art_lbgat.data.images import is_image

logger = logging.getLogger(__name__)
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What systems and programs leave behind, beside whatever begins with a dot.
_JUNK = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"}


class File(NamedTuple):
    """An image file, its class, and the SHA-256 of its content."""

    label: str
    path: Path
    content: str

    def place(self, salt: str) -> int:
        """A number below 2**64 that the content decides."""
        return int.from_bytes(hashlib.sha256(f"{salt} {self.content}".encode()).digest()[:8], "big")


@dataclass
class _Folder:
    path: Path
    direct: list[Path] = field(default_factory=list)
    inside: dict[str, _Folder] = field(default_factory=dict)

    @cached_property
    def images(self) -> list[Path]:
        """Those of the folders in it too."""
        return [*self.direct, *(image for folder in self.inside.values() for image in folder.images)]

    @cached_property
    def filled(self) -> dict[str, _Folder]:
        return {name: folder for name, folder in self.inside.items() if folder.images}

    @property
    def innermost(self) -> _Folder:
        """Itself, or what lies in it where it only wraps one folder of folders (as unpacked archives do)."""
        only = next(iter(self.filled.values()), self)
        return self if self.direct or only.direct or len(self.filled) != 1 else only.innermost


def find_files(root: Path) -> dict[str, list[File]]:
    """The image files of ``"train"``, ``"test"`` and ``"validation"``; or of ``"whole"``, where there are no parts.

    Names of parts are understood in any usual spelling. Where it is not clear what is what, the folder is refused; a
    warning says how many files are left out.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"root: expected a folder of images, {root}/<class>/<image>, but {root} is none.")
    others = Counter[str]()
    top = _read(root, others)
    if not any(map(_part, top.filled)):
        top = top.innermost
    if top.direct and top.filled:
        others["images without a folder"] += len(top.direct)
    if others:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        logger.warning("root: %d files in %s are left out: %s.", sum(others.values()), root, counts)
    kinds = {_part(name) for name in top.filled}
    parts = [(part, each) for name, each in top.filled.items() if (part := _part(name)) and not each.direct]
    if not parts and (None in kinds or len(kinds) < 2):
        return {"whole": _classes(top)}
    found = dict(parts)
    if not len(top.filled) == len(parts) == len(found) > 1 or "train" not in found:
        expected = f"folders {top.path}/train/<class>/<image> and test/<class>/<image> (val too), and no others"
        got = f"{sorted(top.filled)} in {top.path}"
        raise FileNotFoundError(f"root: expected {expected}, or <class>/<image> alone, but there are {got}.")
    return {part: _classes(folder.innermost) for part, folder in found.items()}


def _read(path: Path, others: Counter[str]) -> _Folder:
    folder = _Folder(path)
    for each in sorted(path.iterdir()):
        if each.name.startswith(".") or each.name.lower() in _JUNK:
            continue
        if each.is_dir():
            folder.inside[each.name] = _read(each, others)
        elif is_image(each):
            folder.direct.append(each)
        else:
            others[each.suffix.lower() or "without an ending"] += 1
    return folder


def _part(name: str) -> str | None:
    """The part that a folder is called by, such as ``Training_Set``."""
    words = re.split(r"[^a-z]+|(?:set|data)(?![a-z])", name.lower())
    found = {_PARTS[word] for word in words if word in _PARTS}
    return found.pop() if len(found) == 1 else None


def _classes(folder: _Folder) -> list[File]:
    """The files of the classes in a folder."""
    place, empty = folder.path, sorted(set(folder.inside) - set(folder.filled))
    if not folder.filled:
        raise FileNotFoundError(
            f"root: expected folders {place}/<class>/<image>, or {place}/train/<class>/<image> and {place}/test/"
            f"<class>/<image>, but there are {sum(each.is_file() for each in place.iterdir())} files without a folder "
            "of their class."
        )
    if empty:
        raise FileNotFoundError(f"root: expected images in every folder of a class, {place} has none in {empty}.")
    files = []
    for name, inner in folder.inside.items():
        if not inner.direct and all(map(_part, inner.filled)):
            part = place / name / next(iter(inner.filled))
            raise ValueError(f"root: expected folders of classes in those of parts, got the part {part} in a class.")
        # Systems write accents in different ways.
        label = unicodedata.normalize("NFC", check_utf8(name, f"root: in {place}"))
        files += [File(label, path, _content(path)) for path in inner.images]
    return files


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"root: expected an image in {path} ({error}).") from error


def divided(files: list[File], share: float, salt: str, parts: int) -> tuple[list[File], list[File]]:
    """Files in two, the second about a share of each class: never none, and leaving some for each of ``parts - 1``.

    The content of a file decides where it is, so that none moves when others come, and copies stay together.
    """
    counts = {}
    for label, places in _places(files, salt).items():
        if len(places) < parts:
            expected = f"at least {parts} different images of each class, one for each part"
            raise ValueError(f"root: expected {expected}, got {len(places)} of {label!r}.")
        counts[label] = min(max(1, sum(place < share * 2**64 for place in places)), len(places) - parts + 1)
    second = lowest(files, salt, counts)
    return sorted(set(files).difference(second)), second


def lowest(files: list[File], salt: str, counts: Mapping[str, int]) -> list[File]:
    """The files of so many contents of each class, those placed lowest."""
    kept = {(label, place) for label, places in _places(files, salt).items() for place in places[: counts[label]]}
    return [each for each in files if (each.label, each.place(salt)) in kept]


def _places(files: list[File], salt: str) -> dict[str, list[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for each in files:
        found[each.label].add(each.place(salt))
    return {label: sorted(places) for label, places in found.items()}


def without_copies(files: list[File], others: Iterable[File]) -> list[File]:
    """Files whose content is not among that of others, which are held out."""
    held = {each.content for each in others}
    left = [each for each in files if each.content not in held]
    if lost := sorted({each.label for each in files} - {each.label for each in left}):
        raise ValueError(f"root: expected images of {lost} that are in one part alone, got copies of those held out.")
    copies = [str(each.path) for each in files if each.content in held]
    if copies:
        why = "since a part that is held out has copies of them, such as"
        logger.warning("root: %d images are left out, %s %s.", len(copies), why, copies[0])
    return left
