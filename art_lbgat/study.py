"""A study: methods x eps x seeds on one data set, each trained and judged alike, in parallel processes.

The demo is one study. Every run is a function of its settings and seed alone, so that a table can be repeated.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from torch import Tensor, nn

from art_lbgat.attacks import PGDAttack, TRADESAttack
from art_lbgat.checks import check_choice, check_count, check_number
from art_lbgat.data import DataSet, load_digits
from art_lbgat.engine.randomness import preserved_randomness
from art_lbgat.evaluation import evaluate
from art_lbgat.trainers import BGATTrainer, LBGATTrainer, MadryTrainer, NaturalTrainer, TRADESTrainer
from art_lbgat.trainers.base import BaseTrainer

if TYPE_CHECKING:
    import pandas

State = dict[str, Tensor]


@dataclass(frozen=True)
class StudyOptions:
    """What a study runs. The defaults are the demo; they were chosen on validation data, see ``docs/results.md``.

    :param methods: Names from :data:`METHODS`.
    :param eps: Radii of the Linf ball, inputs in [0, 1].
    :param seeds: One run each; a seed decides split, initial weights, order and attack starts.
    :param nb_epochs: Epochs of every method, the same budget for all (the natural guide too).
    :param batch_size: Samples per batch.
    :param max_iter: Attack steps in training, of ``2.5 * eps / max_iter`` each.
    :param learning_rate: SGD; a fifth of it in the first epoch, a tenth from 60 %, a hundredth from 85 % of the epochs.
    :param guide_ce_weight: LBGAT's weight of the cross-entropy on the guide.
    :param part: What is judged: ``"test"`` for numbers to report, ``"validation"`` to choose settings by.
    :param n_autoattack: Images that AutoAttack judges (the first ones); the other numbers are of the whole part.
    :param workers: Processes; None is one per core.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: An unknown method, an empty list, a value outside its range.
    """

    methods: Sequence[str] = field(default_factory=lambda: tuple(METHODS))
    eps: Sequence[float] = (0.3,)
    seeds: Sequence[int] = (0, 1)
    nb_epochs: int = 25
    batch_size: int = 64
    max_iter: int = 5
    learning_rate: float = 0.05
    guide_ce_weight: float = 4.0
    part: Literal["test", "validation"] = "test"
    n_autoattack: int = 100
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("methods", "eps", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none.")
        for method in self.methods:
            check_choice(method, "methods", METHODS)
        for eps in self.eps:
            check_number(eps, "eps", exclusive=True)
        for seed in self.seeds:
            check_count(seed, "seeds", minimum=0)
        for name in ("nb_epochs", "batch_size", "max_iter", "n_autoattack"):
            check_count(getattr(self, name), name)
        check_choice(self.part, "part", ("test", "validation"))
        if self.workers is not None:
            check_count(self.workers, "workers")
        check_number(self.learning_rate, "learning_rate", exclusive=True)
        check_number(self.guide_ce_weight, "guide_ce_weight")

    def process_count(self) -> int:
        """How many processes run."""
        return self.workers or max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


class Task(NamedTuple):
    """One run: a method at one eps with one seed."""

    method: str
    eps: float
    seed: int
    options: StudyOptions
    guide: State | None = None


class Models(NamedTuple):
    """What a method's trainer is built from."""

    classifier: PyTorchClassifier
    fresh_guide: PyTorchClassifier
    trained_guide: PyTorchClassifier
    attack: dict[str, Any]
    options: StudyOptions


def small_cnn(nb_classes: int = 10, channels: int = 1, size: int = 8) -> nn.Sequential:
    """A CNN for images as small as the digits: 3x3 convolutions of width 8, 32, 32 with BatchNorm, strides 1, 2, 2.

    :param nb_classes: Number of outputs.
    :param channels: Channels of the images.
    :param size: Height and width of the images, a multiple of 4.
    """
    layers: list[nn.Module] = []
    for width, stride in ((8, 1), (32, 2), (32, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, nb_classes))


def step_schedule(optimizer: torch.optim.Optimizer, nb_epochs: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A gentler first epoch (a fifth), then full, a tenth from 60 % and a hundredth from 85 % of the epochs."""

    def factor(epoch: int) -> float:
        if epoch == 0:
            return 0.2
        return 1.0 if epoch < 0.6 * nb_epochs else 0.1 if epoch < 0.85 * nb_epochs else 0.01

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _natural(models: Models, **run: Any) -> BaseTrainer:
    return NaturalTrainer(models.classifier, **run)


def _madry(models: Models, **run: Any) -> BaseTrainer:
    return MadryTrainer(models.classifier, PGDAttack(models.classifier, **models.attack), **run)


def _trades(models: Models, **run: Any) -> BaseTrainer:
    return TRADESTrainer(models.classifier, TRADESAttack(models.classifier, **models.attack), beta=6.0, **run)


def _bgat(models: Models, **run: Any) -> BaseTrainer:
    return BGATTrainer(models.classifier, models.trained_guide, PGDAttack(models.classifier, **models.attack), **run)


def _lbgat(models: Models, **run: Any) -> BaseTrainer:
    attack = PGDAttack(models.classifier, **models.attack)
    weight = models.options.guide_ce_weight
    return LBGATTrainer(models.classifier, models.fresh_guide, attack, guide_ce_weight=weight, **run)


def _lbgat_trades(alpha: float) -> Callable[..., BaseTrainer]:
    def build(models: Models, **run: Any) -> BaseTrainer:
        return LBGATTrainer(
            models.classifier,
            models.fresh_guide,
            TRADESAttack(models.classifier, **models.attack),
            guide_ce_weight=models.options.guide_ce_weight,
            regularizer="trades",
            regularizer_weight=alpha,
            **run,
        )

    return build


METHODS: dict[str, Callable[..., BaseTrainer]] = {
    "Natural (guide)": _natural,
    "PGD-AT": _madry,
    "TRADES (6)": _trades,
    "BGAT": _bgat,
    "LBGAT": _lbgat,
    "LBGAT+TRADES (0)": _lbgat_trades(0.0),
    "LBGAT+TRADES (6)": _lbgat_trades(6.0),
}
_GUIDE = "Natural (guide)"
_NEEDS_GUIDE = {"BGAT"}


def run_study(
    options: StudyOptions, report: Callable[[int, int, dict[str, Any]], None] | None = None
) -> pandas.DataFrame:
    """Train and judge every method at every eps with every seed.

    :param options: What to run.
    :param report: Called with (runs done, runs in all, row) after each run.
    :return: A row per run: ``method``, ``eps``, ``seed``, accuracies in [0, 1], ``seconds`` of training and of judging.
    """
    import pandas

    wanted = [(m, e, s) for e in options.eps for s in options.seeds for m in options.methods]
    guides = {s for m, _, s in wanted if m in _NEEDS_GUIDE}
    rows: list[dict[str, Any]] = []

    def finished(future: Future[tuple[dict[str, Any], State]]) -> tuple[dict[str, Any], State]:
        row, state = future.result()
        rows.append(row)
        if report is not None:
            report(len(rows), len(wanted) + len(guides - natural_seeds), row)
        return row, state

    natural_seeds = {s for m, _, s in wanted if m == _GUIDE}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.process_count(), mp_context=context, initializer=_initialize) as pool:
        # Guides first: BGAT needs them; they are trained naturally, so one serves every eps of its seed.
        first = {
            pool.submit(run, Task(_GUIDE, options.eps[0], seed, options)): seed
            for seed in sorted(guides | natural_seeds)
        }
        states = {first[future]: finished(future)[1] for future in as_completed(first)}
        naturals = [(m, e, s) for m, e, s in wanted if m == _GUIDE and e != options.eps[0]]
        others = [(m, e, s) for m, e, s in wanted if m != _GUIDE] + naturals
        futures = [pool.submit(run, Task(m, e, s, options, states.get(s))) for m, e, s in others]
        for future in as_completed(futures):
            finished(future)
    table = pandas.DataFrame(rows)
    table = table[table.method.isin(options.methods)]
    table["order"] = table.method.map(list(METHODS).index)
    return table.sort_values(["eps", "order", "seed"]).drop(columns="order").reset_index(drop=True)


def run(task: Task) -> tuple[dict[str, Any], State]:
    """One run: build, train on the training part, judge on the test (or validation) part.

    :param task: What to run.
    :return: The row of the table, and the weights.
    """
    options, data = task.options, load_digits(task.seed)
    with preserved_randomness():
        torch.manual_seed(task.seed)
        classifier, fresh, trained = (_classifier(data, options) for _ in range(3))
    if task.guide is not None:
        trained.model.load_state_dict(task.guide)
    attack = {"eps": task.eps, "eps_step": 2.5 * task.eps / options.max_iter, "max_iter": options.max_iter}
    models = Models(classifier, fresh, trained, attack, options)
    warmup = 0 if task.method == _GUIDE else options.nb_epochs // 2
    trainer = METHODS[task.method](models, seed=task.seed, verbose=False, eps_warmup_epochs=warmup)
    learners = [classifier, fresh] if isinstance(trainer, LBGATTrainer) else [classifier]
    schedulers = [step_schedule(each.optimizer, options.nb_epochs) for each in learners]
    start = time.perf_counter()
    trainer.fit(*data.train, batch_size=options.batch_size, nb_epochs=options.nb_epochs, scheduler=schedulers)
    train_seconds = time.perf_counter() - start
    row = {"method": task.method, "eps": task.eps, "seed": task.seed, **_judge(classifier, data, task)}
    return {**row, "train_seconds": train_seconds}, {k: v.clone() for k, v in classifier.model.state_dict().items()}


def _judge(classifier: PyTorchClassifier, data: DataSet, task: Task) -> dict[str, Any]:
    x, y = data.test if task.options.part == "test" else data.validation
    n = min(task.options.n_autoattack, len(x))
    whole = evaluate(classifier, x, y, eps=task.eps, attacks=("natural", "pgd-20"), seed=task.seed)
    part = evaluate(classifier, x[:n], y[:n], eps=task.eps, attacks=("autoattack",), seed=task.seed)
    return {
        "natural": whole.accuracy[0],
        "pgd-20": whole.accuracy[1],
        "autoattack": part.accuracy[0],
        "n": len(x),
        "n_autoattack": n,
        "flags": part["flags"][0],
        "judge_seconds": float(whole.seconds.sum() + part.seconds.sum()),
    }


def _classifier(data: DataSet, options: StudyOptions) -> PyTorchClassifier:
    model = small_cnn(data.nb_classes, data.input_shape[0], data.input_shape[1])
    model = model.to(memory_format=torch.channels_last)  # a tenth faster on these small convolutions
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate, momentum=0.9, weight_decay=2e-4)
    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        input_shape=data.input_shape,
        nb_classes=data.nb_classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )


def _initialize() -> None:
    """A worker: one thread, since the processes share the cores; denormals as 0, which are slow on some processors."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def summarize(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Mean and spread over seeds, a row per eps and method.

    :param runs: The table of :func:`run_study`.
    :return: For each accuracy its ``_mean`` and ``_std`` over seeds (sample standard deviation, NaN for one seed) in
        percent, the mean seconds, and the number of seeds.
    """
    columns = ["natural", "pgd-20", "autoattack"]
    grouped = runs.groupby(["eps", "method"], sort=False)
    table = grouped[columns].agg(["mean", "std"]) * 100
    table.columns = [f"{name}_{kind}" for name in columns for kind in ("mean", "std")]
    table["train_seconds"] = grouped["train_seconds"].mean()
    table["judge_seconds"] = grouped["judge_seconds"].mean()
    table["seeds"] = grouped["seed"].count()
    return table.reset_index()


def cell(mean: float, spread: float) -> str:
    """``mean ± spread`` with one decimal; the mean alone where there is no spread."""
    return f"{mean:.1f}" if math.isnan(spread) or np.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"
