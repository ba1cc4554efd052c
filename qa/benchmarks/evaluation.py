"""Evaluation: AutoAttack against the published package, the suite against each attack through ``art.attacks``."""

from __future__ import annotations

import logging
import sys
from typing import Any

import numpy as np
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from art_lbgat import MadryTrainer
from art_lbgat.attacks import PGDAttack
from art_lbgat.classifier import TensorView
from art_lbgat.data import load_digits
from art_lbgat.evaluation import auto_attack, evaluate
from art_lbgat.evaluation.autoattack import published_package
from art_lbgat.models import create_classifier, small_cnn
from qa.benchmarks.models import Net
from qa.benchmarks.report import Row, Settings, Target, Topic, Value
from qa.benchmarks.timing import Contestant, Rounds, measure

EPS, BATCH = 0.1, 250
SUITE = {"fgsm": 1, "pgd-20": 20, "pgd-50": 50}


def robust_digits(epochs: int) -> PyTorchClassifier:
    """A CNN on scikit-learn's digits, trained with PGD for some seconds.

    :param epochs: Epochs.
    :return: The classifier.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = create_classifier(Net(small_cnn()), 10, (1, 8, 8), learning_rate=0.02, device_type="cpu")
    attack = PGDAttack(classifier, eps=0.15, eps_step=0.05, max_iter=5)
    MadryTrainer(classifier, attack, seed=0, verbose=False).fit(*load_digits().train, batch_size=64, nb_epochs=epochs)
    classifier.model.eval()
    return classifier


def run(settings: Settings) -> Topic:
    """Seconds and results of both comparisons."""
    classifier = robust_digits(1 if settings.toy else 8)
    x, y = load_digits().test
    count = 16 if settings.toy else 64
    rows = [
        _autoattack(classifier, x[:count], y[:count], settings),
        *_suite(classifier, x[: 16 if settings.toy else None], y[: 16 if settings.toy else None], settings),
    ]
    notes = [
        f"Digits CNN, Linf, eps {EPS}. AutoAttack: equal examples and flags are asserted.",
        "Suite: FGSM has no random start; PGD's are drawn by each side: accuracies may differ by single samples.",
    ]
    targets = [] if settings.toy else [Target(f"suite {', '.join(SUITE)}", "other / ours", "at least", 1.5)]
    return Topic("Evaluation", rows, notes, targets)


def _autoattack(classifier: PyTorchClassifier, x: Any, y: Any, settings: Settings) -> Row:
    images, labels, view = torch.from_numpy(x), torch.from_numpy(y), TensorView(classifier)
    attacks: Any = ["apgd-ce"] if settings.toy else "standard"
    found: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def ours() -> None:
        result = auto_attack(view, images, labels, EPS, attacks=attacks, batch_size=BATCH, seed=0)
        found["ours"] = result.x_adv, result.robust

    def upstream() -> None:
        version = {"version": "custom", "attacks": attacks} if settings.toy else {"version": "standard"}
        trace = sys.gettrace()  # which one of its checks switches off
        runner = published_package().AutoAttack(classifier.model, eps=EPS, norm="Linf", seed=0, device="cpu", **version)
        runner.logger.setLevel(logging.ERROR)
        try:
            x_adv, y_adv = runner.run_standard_evaluation(images, labels, batch_size=BATCH)
        finally:
            sys.settrace(trace)
        found["upstream"] = x_adv, y_adv == labels

    rounds = measure({"ours": ours, "other": upstream}, 1 if settings.toy else settings.fewer, settings.limit)
    (x_ours, robust), (x_other, robust_other) = found["ours"], found["upstream"]
    assert torch.equal(robust, robust_other), "AutoAttack: other samples withstood than upstream"
    assert torch.equal(x_ours, x_other), "AutoAttack: other examples than upstream"
    accuracy = f"{robust.double().mean():.4f}"
    name = "AutoAttack, pyautoattack" if settings.toy is False else "AutoAttack (APGD-CE), pyautoattack"
    return Row(f"{name}, n={len(x)}", _columns(rounds, accuracy, accuracy))


def _suite(classifier: PyTorchClassifier, x: Any, y: Any, settings: Settings) -> list[Row]:
    steps = {"fgsm": 1, "pgd-2": 2} if settings.toy else SUITE
    accuracies: dict[str, dict[str, float]] = {"ours": {}, "other": {}}

    def ours() -> dict[str, float]:
        table = evaluate(classifier, x, y, eps=EPS, attacks=list(steps), batch_size=BATCH)
        accuracies["ours"] = dict(zip(table["attack"], table["accuracy"], strict=True))
        return dict(zip(table["attack"], table["seconds"], strict=True))

    def other() -> None:
        for name, number in steps.items():
            x_adv = _art_attack(classifier, name, number).generate(x, y)
            accuracies["other"][name] = _accuracy(classifier, x, x_adv, y)

    contestants: dict[str, Contestant] = {"ours": ours, "other": other}
    rounds = measure(contestants, settings.fewer, settings.limit)
    mine, theirs = (", ".join(f"{v:.4f}" for v in accuracies[who].values()) for who in ("ours", "other"))
    return [Row(f"suite {', '.join(steps)}", _columns(rounds, mine, theirs))]


def _art_attack(classifier: PyTorchClassifier, name: str, steps: int) -> Any:
    if name == "fgsm":
        return FastGradientMethod(classifier, eps=EPS, batch_size=BATCH)
    return ProjectedGradientDescent(
        classifier, eps=EPS, eps_step=EPS / 10, max_iter=steps, num_random_init=1, batch_size=BATCH, verbose=False
    )


def _accuracy(classifier: PyTorchClassifier, x: NDArray[Any], x_adv: NDArray[Any], y: NDArray[Any]) -> float:
    """Of samples that are right naturally and under the attack, as the suite counts."""
    natural, attacked = (classifier.predict(z, batch_size=BATCH).argmax(1) == y for z in (x, x_adv))
    return float(np.mean(natural & attacked))


def _columns(rounds: Rounds, ours: str, other: str) -> dict[str, Value]:
    return {
        "ours, s": rounds.time("ours"),
        "other, s": rounds.time("other"),
        "other / ours": rounds.ratio("other", "ours"),
        "accuracy, ours": ours,
        "accuracy, other": other,
    }
