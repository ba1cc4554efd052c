"""Files of checkpoints flipped, cut, deleted, swapped and filled with rubbish; then the run goes on, or says why not."""

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

TEST = "bit flips, truncations, deletions, swaps, rubbish and files of other checkpoints in one or all checkpoints"
ASKED = "the file is named and the checkpoint before it gives the same bits, or (all damaged) the run is refused"


def flip(file: Path, generator: random.Random) -> None:
    """One bit changed."""
    data = bytearray(file.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)


def cut(file: Path, generator: random.Random) -> None:
    """Some of the end lost."""
    file.write_bytes(file.read_bytes()[: generator.randrange(file.stat().st_size)])


def delete(file: Path, generator: random.Random) -> None:
    """The file gone."""
    file.unlink()


def swap(file: Path, generator: random.Random) -> None:
    """Exchanged with another file of the same checkpoint."""
    other = generator.choice([path for path in sorted(file.parent.iterdir()) if path.read_bytes() != file.read_bytes()])
    first, second = file.read_bytes(), other.read_bytes()
    file.write_bytes(second)
    other.write_bytes(first)


def rubbish(file: Path, generator: random.Random) -> None:
    """As many other bytes."""
    file.write_bytes(generator.randbytes(file.stat().st_size))


def of_another(file: Path, generator: random.Random) -> None:
    """The file of that name of another checkpoint of the run, of another content."""
    others = [path / file.name for path in file.parent.parent.glob("step-*") if path != file.parent]
    differing = [path for path in others if path.exists() and path.read_bytes() != file.read_bytes()]
    if not differing:
        flip(file, generator)
        return
    file.write_bytes(generator.choice(differing).read_bytes())


DAMAGES: list[Callable[[Path, random.Random], None]] = [flip, cut, delete, swap, rubbish, of_another]


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
                damage = DAMAGES[number % len(DAMAGES)]
                for path in bad:
                    damage(generator.choice(sorted(path.iterdir())), generator)
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
