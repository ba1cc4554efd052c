"""What one of several processes does in the tests of training over processes; started by torchrun, or by hand."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from art_lbgat.attacks import NFGSMAttack, PGDAttack, TRADESAttack
from art_lbgat.engine.history import StepRecord
from art_lbgat.processes import is_main_process
from art_lbgat.trainers import METHODS
from tests.conftest import make_classifier, make_data
from tests.trainers.cases import NOT_REPEATED, TRAINERS


class Net(nn.Module):
    """Convolution, tanh and a linear layer, no BatchNorm, and a layer that takes no part, in any precision.

    :param seed: Of its weights.
    :param double: Whether it computes in float64.
    """

    def __init__(self, seed: int, *, double: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(384, 4))
            self.unused = nn.Linear(3, 3)
        self.to(torch.float64 if double else torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.net(x.to(self.unused.weight.dtype))


def train(
    name: str,
    norm: str = "inf",
    *,
    double: bool = True,
    bn: bool = False,
    loader: bool = False,
    nb_epochs: int = 4,
    pause: float = 0.0,
    die_at: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Train one case, and say what came of it.

    :param name: A trainer of ``tests.trainers.cases``.
    :param norm: ``"inf"`` or ``"2"``.
    :param double: Whether the models compute in float64.
    :param bn: Whether they are the convolutional nets with BatchNorm of the other tests.
    :param loader: Whether the data come from a torch loader instead of arrays.
    :param nb_epochs: Epochs of six steps.
    :param pause: Seconds slept in each step.
    :param die_at: The step in which this process kills itself; 0 for none.
    :param options: Options of the trainer.
    :return: Weights, history, and this process's x_adv of each training step.
    """
    torch.set_num_threads(1)
    models = [None, None] if bn else [Net(seed, double=double) for seed in (0, 1)]
    classifier, guide = (make_classifier(m, seed=i, lr=0.02) for i, m in enumerate(models))
    kind = {"trades": TRADESAttack, "n-fgsm": NFGSMAttack}.get(METHODS[name].attack_kind, PGDAttack)
    attack = kind(classifier, norm=float(norm), eps=0.03 if norm == "inf" else 0.3, eps_step=0.015, max_iter=2)
    made: list[NDArray[Any]] = []

    def on_step(step: StepRecord) -> None:
        time.sleep(pause)
        if step.x_adv is not None:
            made.append(step.x_adv.numpy().copy())
        if die_at and len(made) == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer = TRAINERS[name](classifier, guide=guide, attack=attack, on_step=on_step, **options)
    # 43 samples in batches of 8: the last has three rows, too few for two processes with two each
    x, y = make_data(43)
    data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    source = (DataLoader(data, batch_size=8, shuffle=True), None) if loader else (x, y)
    trainer.fit(*source, validation_data=make_data(15, seed=1), batch_size=8, nb_epochs=nb_epochs)
    weights = [value.double().flatten() for each in (classifier, guide) for value in each.model.state_dict().values()]
    history = trainer.history.drop(columns=NOT_REPEATED).to_json(orient="records", double_precision=15)
    return {"weights": torch.cat(weights).numpy(), "history": json.loads(history), "x_adv": made}


def save(results: list[dict[str, Any]], path: Path) -> None:
    """Histories as ``path``, arrays of this process as ``path.rank.npz``."""
    rank = int(os.environ.get("RANK", "0"))
    if is_main_process():
        path.write_text(json.dumps([result["history"] for result in results]))
    arrays = {f"weights {i}": result["weights"] for i, result in enumerate(results)}
    for i, result in enumerate(results):
        arrays |= {f"x_adv {i} {step}": x_adv for step, x_adv in enumerate(result["x_adv"])}
    np.savez(f"{path}.{rank}.npz", **arrays)


def main() -> None:
    """Train the cases of a JSON file one after the other; the main process writes what came of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument(
        "--die-at", type=int, default=0, help="step in which the second process ends, in the first attempt only"
    )
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    first = os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0" and os.environ.get("RANK") == "1"
    death = {"die_at": given.die_at} if given.die_at and first else {}
    save([train(**case, **death) for case in json.loads(given.cases.read_text())], given.results)


if __name__ == "__main__":
    main()
