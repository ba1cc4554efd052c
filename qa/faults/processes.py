"""Training over several processes against one, against itself, and with one of them killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qa.faults.row import Row

ROOT = Path(__file__).parents[2]
#: Every trainer, both norms, averages, perturbed weights, clipping; more than 20 steps each.
CASES: list[dict[str, Any]] = [
    *(
        {"name": name}
        for name in ("natural", "madry", "alp", "trades", "mart", "fast-at", "n-fgsm", "bgat", "lbgat", "hat", "adr")
    ),
    {"name": "lbgat", "norm": "2", "ema_decay": 0.9, "awp_gamma": 0.01, "awp_start_epoch": 1},
    {"name": "lbgat", "loader": True},
    {"name": "trades", "norm": "2", "awp_gamma": 0.01, "awp_start_epoch": 2, "max_grad_norm": 0.1},
]
TOLERANCE = 1e-12


class Result:
    """What the processes of one run wrote.

    :param path: As given to the worker.
    :param world: How many processes there were.
    """

    def __init__(self, path: Path, world: int) -> None:
        self.histories = json.loads(path.read_text())
        self.arrays = [dict(np.load(f"{path}.{rank}.npz")) for rank in range(world)]

    def x_adv(self, name: str, rows: int) -> Any:
        """The global batch, put together from all processes."""
        return np.concatenate([arrays[name] for arrays in self.arrays])[:rows]


def launch(folder: Path, cases: list[dict[str, Any]], world: int, *extra: str, name: str = "run") -> Result:
    """Run the worker on one process, or on several by torchrun.

    :param folder: Where it writes.
    :param cases: What is trained.
    :param world: How many processes.
    :param extra: More arguments: those of torchrun before ``"--"``, those of the worker after it.
    :param name: Of the files.
    """
    file, out = folder / f"{name}.cases.json", folder / f"{name}.json"
    file.write_text(json.dumps(cases))
    split = extra.index("--") if "--" in extra else len(extra)
    command = [sys.executable, "-W", "ignore"]
    if world > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), *extra[:split]]
    command += ["-m", "qa.faults.worker", str(file), str(out), *extra[split + 1 :]]
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return Result(out, world)


def compare(one: Result, two: Result) -> list[str]:
    """Where several processes differ from one by more than they may: weights, x_adv, history; nothing if nowhere."""
    problems = []
    for i, case in enumerate(CASES):
        label = " ".join(map(str, case.values()))
        alone = one.arrays[0][f"weights {i}"]
        difference = max(float(np.abs(arrays[f"weights {i}"] - alone).max()) for arrays in two.arrays)
        if difference > TOLERANCE:
            problems.append(f"{label}: weights differ by {difference:.1e}")
        if any((arrays[f"weights {i}"] != two.arrays[0][f"weights {i}"]).any() for arrays in two.arrays):
            problems.append(f"{label}: the processes differ from each other")
        for key in (key for key in one.arrays[0] if key.startswith(f"x_adv {i} ")):
            expected = one.arrays[0][key]
            if not np.array_equal(two.x_adv(key, len(expected)), expected):
                problems.append(f"{label}: {key}")
        problems += [f"{label}: history, {line}" for line in _unequal(one.histories[i], two.histories[i])]
    return problems


def equal(world: int = 2) -> Row:
    """float64: weights and x_adv of several processes against one; then the same run once more."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, two = launch(folder, CASES, 1, name="one"), launch(folder, CASES, world, name="two")
        again = launch(folder, CASES, world, name="again")
    problems = compare(one, two)
    for first, second in zip(two.arrays, again.arrays, strict=True):
        problems += [f"repeat: {key}" for key in first if not np.array_equal(first[key], second[key])]
    largest = max(
        float(np.abs(arrays[f"weights {i}"] - one.arrays[0][f"weights {i}"]).max())
        for i in range(len(CASES))
        for arrays in two.arrays
    )
    notes = f"24 steps; largest difference of a weight {largest:.0e}; all x_adv identical; repeated to the same bits"
    return Row(
        f"{world} processes vs one with the same global batch, float64, every trainer, Linf and L2, EMA, AWP, unused layer",
        "weights equal to 1e-12 after 20 steps, x_adv identical; runs repeat bit by bit",
        len(CASES),
        len(CASES) - len({problem.split(":")[0] for problem in problems}),
        "; ".join(problems[:5]) or notes,
    )


def single_precision() -> Row:
    """fp32: the first x_adv of two processes is that of one, and two runs of two processes have the same bits."""
    cases = [{"name": name, "double": False, "nb_epochs": 2} for name in ("lbgat", "trades")]
    cases.append({"name": "lbgat", "bn": True, "nb_epochs": 2, "ema_decay": 0.9})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, two = launch(folder, cases, 1, name="one"), launch(folder, cases, 2, name="two")
        again = launch(folder, cases, 2, name="again")
    good = 0
    for i in range(len(cases)):
        first = one.arrays[0][f"x_adv {i} 0"]
        same = np.array_equal(two.x_adv(f"x_adv {i} 0", len(first)), first)
        repeated = all(
            np.array_equal(a[key], b[key])
            for a, b in zip(two.arrays, again.arrays, strict=True)
            for key in a
            if key.split()[1] == str(i)
        )
        agree = np.array_equal(two.arrays[0][f"weights {i}"], two.arrays[1][f"weights {i}"])
        good += same and repeated and agree
    drift = float(np.abs(two.arrays[0]["weights 0"] - one.arrays[0]["weights 0"]).max())
    return Row(
        "two processes vs one, fp32, without and with BatchNorm",
        "first x_adv bit-equal; two-process runs bit-identical across repeats; both processes hold the same weights",
        len(cases),
        good,
        f"largest difference of a weight after 12 steps, without BatchNorm: {drift:.0e}",
    )


def killed(victims: Sequence[int] = (0, 1)) -> Row:
    """One of two processes is killed: the other ends; the run goes on with two, with one, and restarted by torchrun.

    :param victims: Ranks that are killed, one run after the other.
    """
    good, notes = 0, []
    case = {"name": "lbgat", "nb_epochs": 4, "checkpoint_every": "1 step", "loader": True}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = launch(folder, [{**case, "checkpoint_dir": str(folder / "whole")}], 2, name="whole")
        for victim in victims:
            for world in (1, 2):
                where = folder / f"victim-{victim}-{world}"
                there = {**case, "checkpoint_dir": str(where)}
                seconds, message = _kill_one(folder, {**there, "pause": 0.1}, victim)
                resumed = launch(folder, [{**there, "resume": "must"}], world, name=f"{victim}-{world}")
                difference = np.abs(resumed.arrays[0]["weights 0"] - expected.arrays[0]["weights 0"]).max()
                # with as many processes the bits, with another number up to rounding
                same = difference == 0 if world == 2 else difference <= TOLERANCE
                clear = "another process of this training ended" in message
                good += bool(same and clear and seconds < 60)
                notes.append(f"process {victim} killed: the other ended after {seconds:.1f} s")
                if not (same and clear):
                    notes.append(f"difference {difference}, message {message[-300:]!r}")
        there = {**case, "checkpoint_dir": str(folder / "restarted")}
        restarted = launch(folder, [there], 2, "--max-restarts", "2", "--", "--die-at", "13", name="restarted")
        same = np.array_equal(restarted.arrays[0]["weights 0"], expected.arrays[0]["weights 0"])
        good += same
    return Row(
        "one of two processes killed by SIGKILL; resumed with 1 and 2 processes; torchrun --max-restarts",
        "the other ends within a minute with a clear message; the run goes on to the same weights",
        2 * len(victims) + 1,
        good,
        "; ".join([*dict.fromkeys(notes), f"restarted by torchrun: {'the same bits' if same else 'other weights'}"]),
    )


def _kill_one(folder: Path, case: dict[str, Any], victim: int) -> tuple[float, str]:
    """Start two processes by hand, kill one once a checkpoint is there; how long the other took to end, and its words."""
    file = folder / "killed.cases.json"
    file.write_text(json.dumps([case]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in (0, 1):
        environment = {
            **_environment(),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        command = [sys.executable, "-W", "ignore", "-m", "qa.faults.worker", str(file), str(folder / "killed.json")]
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    deadline = time.monotonic() + 60
    while not list(Path(case["checkpoint_dir"]).glob("fit-001/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    started[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    other = started[1 - victim]
    try:
        _, words = other.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        other.kill()
        words = "it did not end"
    started[victim].communicate()
    return time.monotonic() - began, words


def _environment() -> dict[str, str]:
    left = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD_SIZE", "LOCAL_"))}
    return {**left, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def _unequal(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[str]:
    lines = []
    for one, two in zip(first, second, strict=True):
        for key, value in one.items():
            other = two.get(key)
            close = abs(value - other) <= 1e-6 if isinstance(value, float) and other is not None else value == other
            if not close:
                lines.append(f"{key} {value} and {other}")
    return lines
