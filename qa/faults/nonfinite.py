"""NaN and infinities put into data, weights, gradients, logits and the attack at one step of a run."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from art_lbgat.attacks import PGDAttack
from art_lbgat.engine.checkpoint import read_newest
from art_lbgat.engine.step import NonFiniteError
from qa.faults.row import Row
from tests.trainers.cases import HELD, TRAINERS, Case, X, Y

TEST = "NaN or Inf put into data, weights, gradients, logits and the attack at one step"
ASKED = "an error that names epoch and step; weights and the newest checkpoint are finite"
EPOCH, STEP = 2, 3  # of the run; an epoch has four steps
_NUMBER = 4 * (EPOCH - 1) + STEP


def _steps(case: Case) -> list[int]:
    """Counts the training forwards of the student, a list with a number for each step begun."""
    begun: list[int] = []

    def count(module: Any, args: Any) -> None:
        if module.training:
            begun.append(1)

    case.classifier.model.register_forward_pre_hook(count)
    return begun


def in_data(case: Case, value: float) -> dict[str, Any]:
    """A loader whose seventh batch has one bad pixel."""
    batches, given = [slice(i, i + 8) for i in range(0, len(X), 8)], []

    class Loader(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> Any:
            given.append(1)
            x = torch.from_numpy(X[batches[index]]).clone()
            if len(given) == _NUMBER:
                x[1, 0, 2, 3] = value
            return x, torch.from_numpy(Y[batches[index]])

    return {"x": torch.utils.data.DataLoader(Loader(), batch_size=None, shuffle=False), "y": None, "augmentation": None}


def in_weights(case: Case, value: float) -> dict[str, Any]:
    """A weight that goes bad after a step, as a fault of memory would make it."""
    done: list[int] = []

    def spoil(*_: object) -> None:
        done.append(1)
        if len(done) == _NUMBER - 1:
            with torch.no_grad():
                case.classifier.model[0].weight[0, 0, 0, 0] = value

    case.classifier.optimizer.register_step_post_hook(spoil)
    return {}


def in_gradients(case: Case, value: float) -> dict[str, Any]:
    """A gradient that goes bad in the backward pass."""
    begun, spoilt = _steps(case), []

    def spoil(gradient: torch.Tensor) -> torch.Tensor | None:
        if len(begun) < _NUMBER or spoilt:
            return None
        spoilt.append(1)
        bad = gradient.clone()
        bad.view(-1)[0] = value
        return bad

    case.classifier.model[7].weight.register_hook(spoil)
    return {}


def in_logits(case: Case, value: float) -> dict[str, Any]:
    """One logit of the robust model that goes bad in training."""
    spoilt, begun = [], _steps(case)

    def spoil(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        if not module.training or len(begun) != _NUMBER or spoilt:
            return None
        spoilt.append(1)
        bad = output.clone()
        bad[0, 1] = value
        return bad

    case.classifier.model.register_forward_hook(spoil)
    return {}


def in_attack(case: Case, value: float) -> dict[str, Any]:
    """An adversarial example with one bad pixel; the attack of this case is a :class:`_Spoilt`."""
    case.trainer.attack.value = value
    return {"validation_data": None}  # which would be attacked too


class _Spoilt(PGDAttack):
    """PGD, but for one call."""

    def __init__(self, classifier: Any) -> None:
        super().__init__(classifier, eps=0.03, eps_step=0.015, max_iter=2)
        self.value, self.calls = 0.0, 0

    def generate(self, x: Any, y: Any = None, **kwargs: Any) -> Any:
        """Examples, the third of which has a bad pixel in one of the calls."""
        x_adv = super().generate(x, y, **kwargs)
        self.calls += 1
        if self.calls == _NUMBER:
            x_adv[2, 0, 1, 1] = self.value
        return x_adv


PLACES: dict[str, Callable[[Case, float], dict[str, Any]]] = {
    "data": in_data,
    "weights": in_weights,
    "gradients": in_gradients,
    "logits": in_logits,
    "attack": in_attack,
}


def run() -> Row:
    """Every place, NaN and Inf; and in the data for every trainer, since an attack may clip infinities away."""
    tries = [(place, value, "lbgat") for place in PLACES for value in (math.nan, math.inf)]
    tries += [("data", value, name) for name in TRAINERS for value in (math.nan, math.inf, -math.inf)]
    failures = []
    for place, value, name in tries:
        reason = judge(place, value, name)
        if reason:
            failures.append(f"{value} in {place}, {name}: {reason}")
    notes = "; ".join(failures) or f"{', '.join(PLACES)}; NaN and Inf"
    return Row(TEST, ASKED, len(tries), len(tries) - len(failures), notes)


def judge(place: str, value: float, name: str) -> str:
    """What went otherwise than asked; nothing if nothing did."""
    with tempfile.TemporaryDirectory() as folder:
        attack = _Spoilt if place == "attack" else None
        case = Case(name, Path(folder), attack, awp_gamma=None, ema_decay=None)
        settings = PLACES[place](case, value)
        x, y = settings.pop("x", X), settings.pop("y", Y)
        error: NonFiniteError | None = None
        try:
            case.trainer.fit(x, y, **{"validation_data": HELD, "batch_size": 8, "nb_epochs": 2, **settings})
        except NonFiniteError as raised:
            error = raised
        # Weights that go bad after a step are found when a checkpoint of that step is to be written, or by the next.
        steps = (STEP - 1, STEP) if place == "weights" else (STEP,)
        if error is None or not any(f"epoch {EPOCH}, step {step}" in str(error) for step in steps):
            return f"expected an error of epoch {EPOCH}, steps {steps}, got {error!r}"
        newest = read_newest(Path(folder) / "fit-001")
        if newest is None or newest.step < _NUMBER - 2:
            return f"expected a checkpoint of the step before, got {newest and newest.step}"
        kept = list(newest.state["models"]["classifier"].values())
        weights = [] if place == "weights" else list(case.classifier.model.parameters())
        finite = all(bool(torch.isfinite(each).all()) for each in [*kept, *weights])
        return "" if finite else "weights or a checkpoint that are not finite"
