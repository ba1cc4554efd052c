"""What a second process and checkpoints cost or bring on this machine, in images per second."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from art_lbgat.processes import is_main_process
from qa.benchmarks.contestants import Task, trainer
from qa.faults.processes import ROOT
from qa.faults.row import Row

TASK = Task("wrn-10-2", 64, 0.0, k=5, steps=4)
_EPOCHS = 3


def measure(threads: int, checkpoint_dir: str | None = None) -> float:
    """Images per second of LBGAT0 on WRN-10-2, global batch 64, K = 5: the median of the epochs but the first.

    :param threads: Of this process.
    :param checkpoint_dir: Where checkpoints go, or None.
    """
    torch.set_num_threads(threads)
    made = trainer(TASK, checkpoint_dir=checkpoint_dir)
    made.fit(*TASK.data(), batch_size=TASK.batch, nb_epochs=_EPOCHS)
    return float(statistics.median(made.history.images_per_second.tolist()[1:]))


def run(repeats: int = 3) -> Row:
    """One process with two threads against two with one each, interleaved; reported, not judged.

    :param repeats: Measurements of each.
    """
    found: dict[str, list[float]] = {"one": [], "two": []}
    for _ in range(repeats):
        found["one"].append(_run(1, 2))
        found["two"].append(_run(2, 1))
    one, two = (statistics.median(found[name]) for name in ("one", "two"))
    notes = f"one process, two threads: {one:.1f} images/s; two processes: {two:.1f} images/s; ratio {two / one:.2f}"
    return Row("two CPU processes on two cores vs one process with two threads", "reported", repeats, repeats, notes)


def _run(world: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-W", "ignore"]
        if world > 1:
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        command += ["-m", "qa.faults.throughput", str(threads), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return float(json.loads(out.read_text()))


if __name__ == "__main__":
    speed = measure(int(sys.argv[1]))
    if is_main_process():
        Path(sys.argv[2]).write_text(json.dumps(speed))
