"""What one of several processes does in the tests of shared AutoAttack; started by torchrun, or by hand.

    python -m tests.evaluation.sharded FOLDER CASE [CASE ...]

runs the cases one after the other and writes what came of each to ``FOLDER/<world>-<rank>-<case>.pt``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from torch import Tensor, nn

from art_lbgat.classifier import TensorView
from art_lbgat.evaluation import auto_attack, evaluate
from tests.conftest import make_classifier, make_data
from tests.evaluation.nets import Wrapped

ROOT = Path(__file__).parents[2]
RANK, WORLD = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
N, BATCH = 41, 4  # the last batch has one image, the last round fewer batches than processes
BROKEN = "nothing is left of this batch"
RAISED = {"fail": ValueError(BROKEN), "leave": KeyboardInterrupt()}  # the second may be caught by the user


@contextlib.contextmanager
def fewer_steps(before: Callable[[Any], None] = lambda runner: None, steps: int = 6) -> Iterator[None]:
    """Attacks of so few steps that a run takes a second; ``before`` sees the runner before each batch of an attack."""
    published = pyautoattack.AutoAttack

    class AutoAttack(published):  # type: ignore[valid-type,misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for attack in (self.apgd, self.apgd_targeted):
                attack.n_iter = attack.n_iter_orig = steps
            self.fab.n_iter, self.square.n_queries = steps // 2, 2 * steps
            for attack in (self.apgd, self.apgd_targeted, self.fab, self.square):
                attack.perturb = functools.partial(self.watched, attack.perturb)

        def watched(self, perturb: Any, *batch: Tensor) -> Tensor:
            before(self)
            return perturb(*batch)

    pyautoattack.AutoAttack = AutoAttack
    try:
        yield
    finally:
        pyautoattack.AutoAttack = published


def at_batch(number: int, action: Callable[[], None]) -> Callable[[Any], None]:
    """Do something before the batch that this process runs as its ``number``-th."""
    calls = itertools.count(1)
    return lambda runner: action() if next(calls) == number else None


def nan_beyond(logits, closest=0.014):
    """NaN where an attack has brought the logits close together: here in the sixth of the batches of five."""
    gap = logits.topk(2, dim=1).values
    return torch.where((gap[:, :1] - gap[:, 1:]) < closest, torch.nan, logits)


def images(n: int, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images labelled as the model sees them, every seventh otherwise."""
    x = torch.from_numpy(make_data(n)[0])
    with torch.no_grad():
        y = model.eval()(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 4
    return x, y


def attacked(
    after: Any = None, n: int = N, shift: float = 0.0, attacks: Any = "standard", **options: Any
) -> dict[str, Any]:
    """AutoAttack on an untrained network; everything but the seconds."""
    classifier = make_classifier()
    x, y = images(n, classifier.model)
    if after is not None:
        classifier = make_classifier(Wrapped(classifier.model, after=after))
    options = {"eps": 0.1, "batch_size": BATCH, **options}
    found = auto_attack(TensorView(classifier), x + shift, y, attacks=attacks, **options)
    flags = [list(item) for item in found.flags.items()]  # in order, since the table of evaluate lists them so
    return {**found._asdict(), "flags": flags, "seconds": list(found.seconds)}


def table() -> dict[str, Any]:
    """The table of ``evaluate``."""
    classifier = make_classifier()
    x, y = images(13, classifier.model)
    attacks = ["natural", "pgd-3", "autoattack", "worst"]
    found = evaluate(classifier, x.numpy(), y.numpy(), eps=0.1, attacks=attacks, batch_size=BATCH)
    return {"table": found.drop(columns="seconds").to_json()}


def evaluated(folder: Path) -> dict[str, Any]:
    """RobustBench's benchmark on the images in ``folder/data``; its result is saved as ``folder/<rank>.json``."""
    from art_lbgat.robustbench import benchmark
    from tests.robustbench import test_benchmark

    classifier = test_benchmark.make_classifier(test_benchmark.halves())
    found = benchmark(classifier, data_dir=folder / "data", state_path=folder / "benchmark", **test_benchmark.FAST)
    found.save(folder / f"{RANK}.json")
    return {"benchmark": dataclasses.replace(found, seconds={}).to_json()}


def run_case(case: str, folder: Path) -> dict[str, Any]:
    """One case, its arguments after colons; an error is a result."""
    name, *arguments = case.split(":")
    in_state = lambda: attacked(state_path=folder / arguments[0])  # noqa: E731
    cases: dict[str, Callable[[], dict[str, Any]]] = {
        "whole": attacked,
        "l2": lambda: attacked(norm=2.0, eps=0.7),
        "masked": lambda: attacked(after=lambda z: (8 * z).round() / 8, attacks=["apgd-ce", "apgd-t", "square"]),
        "nan": lambda: attacked(after=nan_beyond, eps=0.01, batch_size=5, attacks=["apgd-ce"]),
        "one batch": lambda: attacked(n=4, attacks=["fab-t", "fab"]),
        "table": table,
        "benchmark": lambda: evaluated(folder),
        "other data": lambda: attacked(shift=0.01 * RANK),
        "state": in_state,
        "kill": in_state,
        "fail": attacked,
        "leave": attacked,
        "alone": lambda: attacked() if RANK == 0 else {},
    }

    def stop() -> None:
        if name == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RAISED[name]

    last = {"kill": int(arguments[-1])} if name == "kill" else dict.fromkeys(RAISED, 2) if RANK == WORLD - 1 else {}
    try:
        with fewer_steps(at_batch(last.get(name, 0), stop)):
            return cases[name]()
    except (ValueError, RuntimeError, OSError, KeyboardInterrupt) as error:
        return {"error": [type(error).__name__, str(error)]}


def launch(folder: Path, world: int, cases: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the cases in ``world`` processes; one of them without torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    command = [sys.executable, "-W", "ignore", *torchrun, "-m", "tests.evaluation.sharded", str(folder), *cases]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def results(folder: Path, world: int, case: str) -> list[dict[str, Any]]:
    """What came of a case, by rank."""
    paths = [folder / f"{world}-{rank}-{case.replace('/', '-')}.pt" for rank in range(world)]
    return [torch.load(path, weights_only=True) for path in paths]  # noqa: TID251 (written below)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two results hold the same bits."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[key]) if isinstance(value, Tensor) else value == second[key]
        for key, value in first.items()
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in sys.argv[2:]:
        file = f"{WORLD}-{RANK}-{each.replace('/', '-')}.pt"
        torch.save(run_case(each, Path(sys.argv[1])), Path(sys.argv[1]) / file)
