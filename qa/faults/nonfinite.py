"""NaN and infinities put into data, weights, gradients, logits and the attack at one step of a run."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from art_lbgat.engine.nonfinite import NonFiniteError
from art_lbgat.trainers import adversary
from qa.faults.row import Row
from tests.trainers.cases import HELD, TRAINERS, Case, X, Y
from tests.trainers.cases import TRAINERS

TEST = "NaN or Inf put into data, weights, gradients, logits and the attack at one step"
ASKED = "found at that step, and the policy obeyed: raise, skip, rollback"
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
    """An adversarial example with one bad pixel."""
    made, original = [], adversary.ascend

    def spoil(*args: Any, **kwargs: Any) -> torch.Tensor:
        x_adv = original(*args, **kwargs)
        made.append(1)
        if len(made) == _NUMBER:
            x_adv[2, 0, 1, 1] = value
        return x_adv

    adversary.ascend = spoil  # run() puts it back
    return {"validation_data": None}  # which would be attacked too


PLACES: dict[str, Callable[[Case, float], dict[str, Any]]] = {
    "data": in_data,
    "weights": in_weights,
    "gradients": in_gradients,
    "logits": in_logits,
    "attack": in_attack,
}
POLICIES = ("raise", "skip", "rollback")


def run() -> Row:
    """Every place, NaN and Inf, under every policy."""
    failures, tried = [], 0
    for place, spoil in PLACES.items():
        for value in (math.nan, math.inf):
            for policy in POLICIES:
                tried += 1
                reason = judge(spoil, value, policy)
                if reason:
                    failures.append(f"{value} in {place}, {policy}: {reason}")
    for name in TRAINERS:  # an attack may clip infinities of the data away, so every trainer is tried
        for value in (math.nan, math.inf, -math.inf):
            tried += 1
            reason = judge(in_data, value, "raise", name)
            if reason:
                failures.append(f"{value} in data, {name}: {reason}")
    return Row(TEST, ASKED, tried, tried - len(failures), "; ".join(failures) or f"{', '.join(PLACES)}; NaN and Inf")


def judge(spoil: Callable[[Case, float], dict[str, Any]], value: float, policy: str, name: str = "lbgat") -> str:
    """What went otherwise than the policy asks; nothing if it was obeyed."""
    with tempfile.TemporaryDirectory() as folder:
        case = Case(name, Path(folder), on_nonfinite=policy, awp_gamma=None)
        rate = case.classifier.optimizer.param_groups[0]["lr"]
        original = adversary.ascend
        error: NonFiniteError | None = None
        try:
            settings = spoil(case, value)
            x, y = settings.pop("x", X), settings.pop("y", Y)
            case.trainer.fit(x, y, **{"validation_data": HELD, "batch_size": 8, "nb_epochs": 2, **settings})
        except NonFiniteError as raised:
            error = raised
        finally:
            adversary.ascend = original
        # Weights that go bad after a step are found when a checkpoint of that step is to be written, or by the next.
        steps = (STEP - 1, STEP) if spoil is in_weights else (STEP,)
        where = [f"epoch {EPOCH}, step {step}" for step in steps]
        # Weights that are bad stay bad: to leave steps out does not help, and the run has to end.
        if policy == "raise" or (policy == "skip" and spoil is in_weights):
            found = error is not None and any(place in str(error) for place in where)
            return "" if found else f"expected an error of {where}, got {error!r}"
        if error is not None:
            return repr(error)
        if not all(bool(p.isfinite().all()) for p in case.classifier.model.parameters()):
            return "weights that are not finite"
        history = case.trainer.history
        if policy == "skip":
            skipped = history.get("skipped_steps")
            return "" if skipped is not None and skipped.iloc[-1] == 1 else f"expected one step left out, got {skipped}"
        now = case.classifier.optimizer.param_groups[0]["lr"]
        return "" if now == rate / 2 and len(history) == 2 else f"learning rate {now}, {len(history)} epochs"
