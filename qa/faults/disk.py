"""Disks that are full, read-only, taken away, and clocks that go back."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from art_lbgat.engine.checkpoint import checkpoints, read_newest
from qa.faults.row import Row
from tests.trainers.cases import Case

TEST = "disk full, read-only directory, directory removed in mid-run, clock set back"
ASKED = "no checkpoint lost, an error that names checkpoint_dir, the same bits afterwards"


def full(root: Path) -> str:
    """The disk is full from the second epoch on: the run ends with an error, and goes on once there is room."""
    expected = Case("lbgat").fit().digest()
    Case("lbgat", root).fit(nb_epochs=1)
    before = [path.name for path in checkpoints(root / "fit-001")]
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        error = _error(lambda: Case("lbgat", root).fit())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    if not isinstance(error, OSError) or "checkpoint_dir" not in str(error):
        return f"expected an OSError that names checkpoint_dir, got {error!r}"
    if [path.name for path in checkpoints(root / "fit-001")] != before or read_newest(root / "fit-001") is None:
        return "a checkpoint was lost"
    return "" if Case("lbgat", root).fit().digest() == expected else "other bits afterwards"


def read_only(root: Path) -> str:
    """The directory cannot be written to: refused before the first step."""
    root.mkdir()
    root.chmod(0o500)
    # The superuser may write to any directory; what lies below a file or below /proc nobody may make.
    place = root if os.access(root, os.W_OK) is False else Path("/proc/self/status/checkpoints")
    case = Case("lbgat", place)
    weights = case.classifier.model[0].weight.detach().clone()
    error = _error(case.fit)
    root.chmod(0o700)
    if not isinstance(error, PermissionError) or "checkpoint_dir" not in str(error):
        return f"expected a PermissionError that names checkpoint_dir, got {error!r}"
    return "" if bool((case.classifier.model[0].weight == weights).all()) else "a step was taken"


def removed(root: Path) -> str:
    """The directory is removed after the third step: the run ends with an error; started again it ends as it should."""
    expected = Case("lbgat").fit().digest()
    case, steps = Case("lbgat", root), []

    def remove(*_: object) -> None:
        steps.append(1)
        if len(steps) == 3:
            shutil.rmtree(root)

    case.classifier.optimizer.register_step_post_hook(remove)
    error = _error(case.fit)
    if not isinstance(error, OSError) or "checkpoint_dir" not in str(error):
        return f"expected an OSError that names checkpoint_dir, got {error!r}"
    return "" if Case("lbgat", root).fit().digest() == expected else "other bits afterwards"


def clock(root: Path) -> str:
    """The clock goes back by a day with every look: the newest checkpoint is still the one of the most steps."""
    expected = Case("lbgat").fit().digest()
    days = iter(range(10**6))
    with mock.patch.object(time, "time", side_effect=lambda: 2e9 - 86400.0 * next(days)):
        Case("lbgat", root).fit(nb_epochs=1)
        newest = read_newest(root / "fit-001")
        if newest is None or newest.step != 4:
            return f"expected step 4 as the newest, got {newest and newest.step}"
        return "" if Case("lbgat", root).fit().digest() == expected else "other bits afterwards"


FAULTS: dict[str, Callable[[Path], str]] = {
    "full": full,
    "read-only": read_only,
    "removed": removed,
    "clock set back": clock,
}


def run() -> Row:
    """Each fault once."""
    failures = []
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            reason = fault(Path(folder) / "run")
        if reason:
            failures.append(f"{name}: {reason}")
    return Row(TEST, ASKED, len(FAULTS), len(FAULTS) - len(failures), "; ".join(failures) or ", ".join(FAULTS))


def _error(action: Callable[[], object]) -> BaseException | None:
    try:
        action()
    except Exception as error:  # whatever it is, it is judged by the caller
        return error
    return None
