"""Memory and file handles over 2,000 steps with checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from art.data_generators import DataGenerator

from qa.benchmarks.contestants import Task, trainer
from qa.benchmarks.memory import ROOT, resident_bytes
from qa.benchmarks.models import find_model, make_data
from qa.faults.row import Row

TEST = "steps of LBGAT + TRADES on the digits CNN, with checkpoints"
ASKED = "no growth of memory above 1 % after the first tenth, no file handle leaked"


class _Watched(DataGenerator):  # type: ignore[misc]
    """One batch over and over; reads memory and open files of the process after a tenth of the steps and at the end."""

    def __init__(self, steps: int) -> None:
        super().__init__(size=64 * steps, batch_size=64)
        self._data = make_data(find_model("digits-cnn").shape, 64)
        self._at, self._step = (steps // 10, steps - 1), 0
        self.found: list[list[int]] = []

    def get_batch(self) -> tuple[Any, Any]:
        """The batch."""
        if self._step in self._at:
            self.found.append([resident_bytes(), len(list(Path("/proc/self/fd").iterdir()))])
        self._step += 1
        return self._data


def watch(steps: int) -> list[list[int]]:
    """Bytes and open files after a tenth of the steps and at the end.

    :param steps: Steps of one epoch.
    """
    generator = _Watched(steps)
    with tempfile.TemporaryDirectory() as folder:
        task = Task("digits-cnn", 64, 6.0, k=3)
        trainer(task, checkpoint_dir=folder, checkpoint_every="50 steps").fit_generator(generator, nb_epochs=1)
    return generator.found


def run(steps: int = 2000) -> Row:
    """In a fresh process.

    :param steps: How many.
    """
    code = f"import json; from qa.faults.growth import watch; print(json.dumps(watch({steps})))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (before, handles), (after, handles_after) = json.loads(done.stdout.splitlines()[-1])
    growth = 100 * (after - before) / before
    # A checkpoint that is being written at the moment of a reading has a file or two open.
    good = steps if growth <= 1 and handles_after <= handles + 2 else 0
    notes = (
        f"memory {before / 2**20:.0f} -> {after / 2**20:.0f} MiB ({growth:+.2f} %), files {handles} -> {handles_after}"
    )
    return Row(f"{steps} {TEST}", ASKED, steps, good, notes)
