"""Checkpoints flipped, cut, emptied, exchanged and filled with rubbish; then the run goes on, or says why not."""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from art_lbgat.engine.checkpoint import checkpoints
from qa.faults.row import Row
from tests.trainers.cases import Case

TEST = "bit flips, truncations, empty files, rubbish and the content of another checkpoint in one or all checkpoints"
ASKED = "the file is named and the checkpoint before it gives the same bits, or (all damaged) the run is refused"


def flip(file: Path, generator: random.Random) -> None:
    """One bit changed."""
    data = bytearray(file.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)


def cut(file: Path, generator: random.Random) -> None:
    """Some of the end lost."""
    file.write_bytes(file.read_bytes()[: generator.randrange(file.stat().st_size)])


def empty(file: Path, generator: random.Random) -> None:
    """Nothing left of it."""
    file.write_bytes(b"")


def rubbish(file: Path, generator: random.Random) -> None:
    """As many other bytes."""
    file.write_bytes(generator.randbytes(file.stat().st_size))


def of_another(file: Path, generator: random.Random) -> None:
    """The content of another checkpoint of the run; where all hold the same by now, one bit changed."""
    others = [path for path in checkpoints(file.parent) if path.read_bytes() != file.read_bytes()]
    if others:
        file.write_bytes(generator.choice(others).read_bytes())
    else:
        flip(file, generator)


DAMAGES: list[Callable[[Path, random.Random], None]] = [flip, cut, empty, rubbish, of_another]


def run(tries: int, seed: int = 0) -> Row:
    """Damage a finished run's checkpoints and go on from what is left.

    :param tries: How often.
    :param seed: Seed of what is damaged.
    """
    generator, heard = random.Random(seed), _Heard()
    logger = logging.getLogger("art_lbgat.engine.checkpoint")
    logger.addHandler(heard)
    good = survived = refused = 0
    failures: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            pristine, root = Path(folder) / "pristine", Path(folder) / "run"
            expected = Case("lbgat", pristine, keep_checkpoints=3).fit().digest()
            for number in range(tries):
                shutil.copytree(pristine, root)
                heard.text = ""
                there = checkpoints(root / "fit-001")
                bad = there if number % 5 == 4 else there[: generator.choice([1, 1, 2])]
                damage = DAMAGES[(number + number // 5) % len(DAMAGES)]
                for path in bad:
                    damage(path, generator)
                if len(bad) == len(there):
                    ended = _is_refused(root, bad)
                    refused += ended
                else:
                    ended = Case("lbgat", root, keep_checkpoints=3).fit().digest() == expected
                    ended = ended and all(path.name in heard.text for path in bad)
                    survived += ended
                good += ended
                if not ended:
                    failures.append(f"{damage.__name__} of {[path.name for path in bad]}")
                shutil.rmtree(root)
    finally:
        logger.removeHandler(heard)
    notes = f"{survived} survived to the same bits, {refused} refused, {tries - good} silently accepted or unnamed"
    return Row(TEST, ASKED, tries, good, "; ".join([notes, *failures[:5]]))


def _is_refused(root: Path, bad: list[Path]) -> bool:
    try:
        Case("lbgat", root, keep_checkpoints=3).fit()
    except ValueError as error:
        return "checkpoint_dir" in str(error) and any(path.name in str(error) for path in bad)
    return False


class _Heard(logging.Handler):
    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += record.getMessage()
