"""Robustness against training time: the authors' procedure, PGD-AT and the quick recipes, on the digits or images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier

from art_lbgat.classifier import TensorView
from art_lbgat.data import DataSet, load_data, make_augmentation
from art_lbgat.evaluation import auto_attack
from art_lbgat.preserve import preserved_randomness
from art_lbgat.recipes import RECIPES, Recipe
from art_lbgat.runs import evaluation_images
from qa.benchmarks import authors as published
from qa.benchmarks.report import Row, Settings, Target, Topic, Value
from qa.benchmarks.timing import Stat, stat

AUTHORS, BASE = "authors", "PGD-AT, K = 10"
SHARES = (0.75, 0.9)  # of the run, after which the published rate falls to a tenth
Train = Callable[[int, int], PyTorchClassifier]  # of epochs and seed


@dataclass(frozen=True)
class Part:
    """One data set.

    :param prefix: Of the ids of its recipes; those of the quick ones begin with ``quick-`` before it.
    :param eps: Radius.
    :param epochs: The lengths of the runs.
    :param n: Test images of AutoAttack.
    """

    prefix: str
    eps: float
    epochs: tuple[int, ...]
    n: int


def contestants(part: Part, data: DataSet) -> dict[str, Train]:
    """What trains a network in so many epochs, frozen guides included.

    :param part: The data set it is of.
    :param data: The images.
    """

    def by(recipe: Recipe) -> Train:
        def train(epochs: int, seed: int) -> PyTorchClassifier:
            experiment = recipe.scaled(epochs).build(data=data, seed=seed, verbose=False)
            experiment.fit()
            return experiment.classifier

        return train

    base = RECIPES[f"{part.prefix}-madry"].override(eps=part.eps, max_iter=10)
    quick = {name: each for name, each in RECIPES.items() if name.startswith(f"quick-{part.prefix.split('-')[0]}")}
    others = {name: by(each.override(eps=part.eps)) for name, each in quick.items() if each.method != "natural"}
    return {AUTHORS: authors(part, data), BASE: by(base), **others}


def authors(part: Part, data: DataSet) -> Train:
    """The authors' procedure: LBGAT + TRADES (a=0), K = 10, the rate falling at 75 and 90 % of the run.

    :param part: The data set it is of.
    :param data: The images.
    """
    recipe = RECIPES[f"{part.prefix}-lbgat0"].override(eps=part.eps)

    def train(epochs: int, seed: int) -> PyTorchClassifier:
        experiment = recipe.build(data=data, seed=seed, verbose=False)  # for its networks with their first weights
        student, (guide,) = experiment.classifier, experiment.guides
        device, parameters = student.device, [*student.model.parameters(), *guide.model.parameters()]
        rates = {"lr": recipe.learning_rate, "momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
        optimizer = torch.optim.SGD(parameters, **rates)
        augment = make_augmentation(recipe.augmentation, data.nb_classes)
        x, y = map(torch.from_numpy, data.train)
        with preserved_randomness():
            torch.manual_seed(seed)
            for epoch in range(epochs):
                fallen = sum(epoch >= share * epochs for share in SHARES)
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * 0.1**fallen
                for rows in torch.randperm(len(x)).split(recipe.batch_size):
                    images = x[rows] if augment is None else augment(x[rows], torch.default_generator)
                    batch, size = (images.to(device), y[rows].to(device)), {"eps": part.eps, "length": part.eps / 4}
                    published.step(student.model, guide.model, optimizer, *batch, alpha=0.0, steps=10, **size)
        return student

    return train


def measure(part: Part, trains: Mapping[str, Train], data: DataSet, rounds: int) -> Iterator[dict[str, Any]]:
    """Train and judge, a seed a round, all in turn within it; each is judged on the same images.

    :param part: The data set.
    :param trains: What trains, by name.
    :param data: The images.
    :param rounds: Seeds.
    """
    x, y = map(torch.from_numpy, evaluation_images(data, part.n).arrays())
    for seed in range(rounds):
        for epochs in part.epochs:
            names = list(trains)
            for name in [*names[seed % len(names) :], *names[: seed % len(names)]]:
                start = time.perf_counter()
                classifier = trains[name](epochs, seed)
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - start
                found = auto_attack(TensorView(classifier), x, y, part.eps)
                right = {"natural": float(found.right.double().mean()), "robust": float(found.robust.double().mean())}
                yield {"name": name, "epochs": epochs, "seed": seed, "seconds": seconds, **right}


def time_to(level: float, seconds: Sequence[float], accuracy: Sequence[float]) -> float | None:
    """Seconds at which a curve first reaches a level, straight between its points; None where it does not.

    :param level: An accuracy.
    :param seconds: Of training, rising.
    :param accuracy: What was reached by then.
    """
    best = np.maximum.accumulate(accuracy)
    if best[-1] < level:
        return None
    at = int(np.argmax(best >= level))
    if at == 0:
        return float(seconds[0])
    share = (level - best[at - 1]) / (best[at] - best[at - 1])
    return float(seconds[at - 1] + share * (seconds[at] - seconds[at - 1]))


def rows_of(part: Part, found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each length of each contestant, and one for its time to the best accuracy of the authors' procedure.

    :param part: The data set.
    :param found: What was measured.
    """
    rows, curves = [], {}
    for name in dict.fromkeys(each["name"] for each in found):
        times: list[Stat] = []
        robust: list[float] = []
        for epochs in part.epochs:
            runs = [each for each in found if (each["name"], each["epochs"]) == (name, epochs)]
            natural, level = (100 * float(np.mean([each[kind] for each in runs])) for kind in ("natural", "robust"))
            times.append(stat([each["seconds"] for each in runs]))
            robust.append(level)
            values: dict[str, Value] = {"training, s": times[-1], "natural %": natural, "AutoAttack %": level}
            rows.append(Row(f"{part.prefix}, {name}, {epochs} epochs", values))
        curves[name] = ([each.median for each in times], robust)
    level = max(curves[AUTHORS][1])
    slow = time_to(level, *curves[AUTHORS])
    for name, curve in curves.items():
        own = time_to(level, *curve)
        values = {"training, s": "not reached" if own is None else own, "AutoAttack %": level}
        if own is not None and slow is not None:
            values["authors / this"] = slow / own
        rows.append(Row(f"{part.prefix}, {name}, to the authors' best", values))
    return rows


def run(settings: Settings) -> Topic:
    """AutoAttack accuracy against training time, and the ratio of times at equal accuracy."""
    parts = {"digits": Part("digits", 0.2, (5, 10, 20, 40), 599)}
    if settings.root is not None:
        parts["cifar10"] = Part("cifar10-small", 8 / 255, (4, 8, 16), 500)
    rows, targets = [], []
    for name, part in parts.items():
        data = load_data(name, settings.root if name != "digits" else None, limit=200 if settings.toy else None)
        part = Part(part.prefix, part.eps, (1, 2), 20) if settings.toy else part
        trains = contestants(part, data)
        rows += rows_of(part, list(measure(part, trains, data, 1 if settings.toy else settings.fewer)))
        where = f"{part.prefix}, {{}}, to the authors' best"
        targets += [Target(where.format(each), "authors / this", "at least", 3.0) for each in list(trains)[2:]]
    notes = [
        "One training each round, with a seed of its own, all in turn; frozen guides are trained within the time.",
        "AutoAttack is the standard one, on the same test images; a time to an accuracy is straight between two lengths.",
    ]
    return Topic("Time to robustness", rows, notes, [] if settings.toy else targets)
