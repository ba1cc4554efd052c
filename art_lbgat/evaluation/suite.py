"""Several attacks on one or several classifiers, as one table."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from art.attacks.attack import EvasionAttack
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.attacks.pgd import PGDAttack
from art_lbgat.attacks.radius import check_scale
from art_lbgat.bridge import TensorView
from art_lbgat.checks import check_count, check_inputs, check_labels, check_norm, check_number
from art_lbgat.engine.modes import evaluating, plain_autograd
from art_lbgat.engine.randomness import preserved_randomness, seed_everything
from art_lbgat.evaluation.autoattack import auto_attack
from art_lbgat.evaluation.verify import verify
from art_lbgat.trainers.checks import check_attack

if TYPE_CHECKING:
    import pandas


def evaluate(
    classifier: PyTorchClassifier | Mapping[str, PyTorchClassifier],
    x: Any,
    y: Any,
    *,
    eps: float,
    norm: float | str = math.inf,
    attacks: Sequence[str | EvasionAttack] = ("natural", "pgd-20", "autoattack"),
    autoattack: str | Sequence[str] = "standard",
    batch_size: int = 250,
    seed: int = 0,
) -> pandas.DataFrame:
    """Accuracy of one or several classifiers under several attacks; a row per classifier and attack.

    A sample counts under an attack if it is classified as labelled naturally and under that attack. Models are judged
    in eval mode, whatever mode they are in; modes and global generators are left as found. Every ``x_adv`` is verified
    (inside the ball to 1e-6 of the input range, inside ``clip_values``, finite) before it counts.

    :param classifier: A classifier, or a mapping from names to classifiers.
    :param x: Raw natural inputs, ``(n, *input_shape)``.
    :param y: Labels, indices or one-hot.
    :param eps: Radius of the ball, in raw input units.
    :param norm: ``np.inf``, ``"inf"`` or 2.
    :param attacks: ``"natural"``, ``"pgd-K"`` (K steps of ``eps / 10`` on cross-entropy from a uniform start),
        ``"autoattack"``, or any untargeted ART evasion attack bound to the classifier (with one classifier).
    :param autoattack: ``"standard"`` or a list of its attacks (custom).
    :param batch_size: Samples per batch.
    :param seed: Seed of every random start.
    :return: Columns ``model`` (with a mapping), ``attack``, ``norm``, ``eps``, ``n``, ``accuracy`` in [0, 1],
        ``seconds``, ``flags`` (warnings of AutoAttack).
    :raises ValueError: Bad arguments, or an ``x_adv`` that leaves the threat model.
    """
    import pandas

    radius, norm_value = check_number(eps, "eps"), check_norm(norm)
    check_count(batch_size, "batch_size")
    check_count(seed, "seed", minimum=0)
    if isinstance(classifier, Mapping):
        tables = []
        for name, each in classifier.items():
            table = evaluate(
                each, x, y, eps=eps, norm=norm, attacks=attacks, autoattack=autoattack, batch_size=batch_size, seed=seed
            )
            table.insert(0, "model", name)
            tables.append(table)
        if not tables:
            raise ValueError("classifier: expected at least one classifier, got an empty mapping.")
        return pandas.concat(tables, ignore_index=True)
    judge = _Judge(classifier, x, y, radius, norm_value, autoattack, batch_size, seed)
    rows = [attacks] if isinstance(attacks, (str, EvasionAttack)) else attacks
    return pandas.DataFrame([judge.row(attack) for attack in rows])


class _Judge:
    """One classifier on one set of samples; each attack is a row."""

    def __init__(
        self,
        classifier: PyTorchClassifier,
        x: Any,
        y: Any,
        eps: float,
        norm: float,
        autoattack: str | Sequence[str],
        batch_size: int,
        seed: int,
    ) -> None:
        self._view = TensorView(classifier, "classifier")
        check_scale(eps, norm, self._view)
        array = check_inputs(x, classifier)
        labels = check_labels(y, classifier.nb_classes, length=len(array))
        if labels.ndim == 2:
            raise ValueError(
                "y: expected hard labels (indices or one-hot), got soft ones; accuracy needs one class each."
            )
        with torch.inference_mode(False):
            self._x = torch.from_numpy(array.astype(np.float32))
            self._y = torch.from_numpy(labels)
        self._eps, self._norm, self._autoattack = eps, norm, autoattack
        self._batch_size, self._seed = batch_size, seed
        self._natural = self._right(self._x)

    def row(self, attack: str | EvasionAttack) -> dict[str, Any]:
        """The row of one attack."""
        with plain_autograd(self._view.device):
            return self._row(attack)

    def _row(self, attack: str | EvasionAttack) -> dict[str, Any]:
        start = time.perf_counter()
        name = attack if isinstance(attack, str) else type(attack).__name__
        flags: tuple[str, ...] = ()
        threat: dict[str, Any] = {"norm": "inf" if self._norm == math.inf else "2", "eps": self._eps}
        if name == "natural":
            right, threat = self._natural, {"norm": "", "eps": 0.0}
        else:
            x_adv, name, flags = self._examples(attack)
            verify(
                self._x, x_adv, self._eps, self._norm, self._cpu_bounds(), self._view.value_range(), f"attack {name!r}"
            )
            right = self._natural & self._right(x_adv)
        return {
            "attack": name,
            **threat,
            "n": len(self._x),
            "accuracy": float(right.double().mean()),
            "seconds": time.perf_counter() - start,
            "flags": "; ".join(flags),
        }

    def _examples(self, attack: str | EvasionAttack) -> tuple[Tensor, str, tuple[str, ...]]:
        with preserved_randomness():
            seed_everything(self._seed)
            if not isinstance(attack, str):
                check_attack(attack, self._view)
                with evaluating(self._view.module):
                    made = attack.generate(x=self._x.numpy().copy(), y=self._one_hot())
                return torch.from_numpy(np.asarray(made, dtype=np.float32)), type(attack).__name__, ()
            if attack == "autoattack":
                return self._auto_attack()
            steps = re.fullmatch(r"pgd-([1-9]\d*)", attack)
            if steps is None:
                raise ValueError(
                    f"attacks: expected 'natural', 'pgd-K', 'autoattack' or an ART attack, got {attack!r}."
                )
            if self._eps == 0:
                return self._x.clone(), attack, ()
            pgd = PGDAttack(
                self._view.classifier, self._norm, self._eps, self._eps / 10, int(steps[1]), batch_size=self._batch_size
            )
            return torch.from_numpy(pgd.generate(self._x.numpy(), self._y.numpy())), attack, ()

    def _auto_attack(self) -> tuple[Tensor, str, tuple[str, ...]]:
        device = self._view.device
        result = auto_attack(
            self._view,
            self._x.to(device),
            self._y.to(device),
            self._eps,
            self._norm,
            self._autoattack,
            self._batch_size,
            self._seed,
        )
        standard = self._autoattack == "standard" and self._view.classifier.nb_classes >= 10
        name = "autoattack (standard)" if standard else "autoattack (custom)"
        return result.x_adv.cpu(), name, result.flags

    def _right(self, x: Tensor) -> Tensor:
        """Which samples are classified as labelled, ``(n,)``, bool."""
        with evaluating(self._view.module), torch.no_grad():
            chunks = torch.split(x, self._batch_size)
            predicted = torch.cat([self._view.logits(c.to(self._view.device)).argmax(dim=1).cpu() for c in chunks])
        return predicted == self._y

    def _one_hot(self) -> NDArray[np.float32]:
        rows: NDArray[np.float32] = np.eye(self._view.classifier.nb_classes, dtype=np.float32)[self._y.numpy()]
        return rows

    def _cpu_bounds(self) -> tuple[Tensor, Tensor] | None:
        bounds = self._view.bounds()
        return None if bounds is None else (bounds[0].cpu(), bounds[1].cpu())
