"""Trainers, their options, attacks and losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.data_generators import PyTorchDataGenerator
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from art_lbgat import Cosine, OneCycle, RunOptions, StepSchedule, attacks, losses
from art_lbgat.classifier import TensorView
from art_lbgat.trainers import METHODS
from qa.faults import wrong_values as wrong
from qa.faults.call import Call
from qa.faults.wrong_values import Strategy, changes, each, values
from tests.conftest import CLASSES, make_classifier, make_data
from tests.trainers.cases import TRAINERS, pgd

N = 6
LOGITS = {"adversarial", "natural", "guide", "helper", "average", "teacher"}
_NAN = [each(lambda: math.nan, lambda: math.inf, lambda: -math.inf)]
_CLASSES = {name: trainer.__name__ for name, trainer in METHODS.items()}
_RUN: dict[str, list[Strategy]] = {
    "eps_warmup_epochs": wrong.count(0),
    "eps_warmup": wrong.number(maximum=1.0),
    "max_iter_schedule": [
        *wrong.junk(),
        each(lambda: "ab", lambda: (3,), lambda: ((0.5, 2),), lambda: ((0, 2), (0, 3)), lambda: ((0,),)),
    ],
    "max_grad_norm": wrong.number(exclusive=True, optional=True),
    "awp_gamma": wrong.number(exclusive=True, optional=True),
    "awp_start_epoch": wrong.count(),
    "ema_decay": wrong.share(optional=True),
    "ema_start": [*wrong.number(), each(lambda: 1.0)],
    "ema_warmup": wrong.flag(),
    "keep": wrong.choice("best", "last"),
    "validate_every": wrong.count(),
    "patience": wrong.count(optional=True),
    "on_collapse": wrong.choice("warn", "stop"),
    "selection": wrong.choice("validation", "test"),
    "precision": wrong.choice("fp32", "bf16", "fp16"),
    "attack_precision": wrong.choice("fp32", "bf16", "fp16", optional=True),
    "channels_last": wrong.flag(),
    "compile": wrong.flag(),
    "checkpoint_dir": wrong.no_path(optional=True)[:-1],
    "checkpoint_every": [*wrong.junk("text"), each(lambda: "often", lambda: 0, lambda: -1, lambda: "0 epochs")],
    "keep_checkpoints": wrong.count(),
    "resume": wrong.no_path()[:-1],
    "trackers": [*wrong.junk(), each(lambda: [None], lambda: ["csv"])],
    "on_step": wrong.junk("none", "function", "type"),
    "seed": wrong.count(0, optional=True),
    "verbose": wrong.flag(),
}


def _other_attack(**options: Any) -> Any:
    """An attack on another classifier."""
    return pgd(make_classifier(seed=5), **options)


def _targeted(attack: Any) -> Any:
    return ProjectedGradientDescent(attack.estimator, eps=0.03, eps_step=0.01, max_iter=2, targeted=True, verbose=False)


_ATTACK = [*wrong.junk("none"), each(_other_attack, make_classifier), changes(_targeted)]
_GUIDANCE = [
    *wrong.choice(*losses.GUIDANCE),
    each(lambda: lambda a, g, y: None, lambda: lambda a, g, y: {"a": a.mean()}, lambda: lambda a: {}, lambda: max),
]


def _constructor(method: str) -> Call:
    kind = METHODS[method]
    own: dict[str, Any] = {}
    wrongs: dict[str, list[Strategy]] = {"classifier": wrong.classifier()}
    if method != "natural":
        wrongs["attack"] = _ATTACK
    if kind.takes_guide:
        wrongs["guide"] = [
            *wrong.classifier(),
            each(list, lambda: make_classifier(shape=(1, 4, 4), model=torch.nn.Flatten(), optimizer=None)),
            each(lambda: make_classifier(clip_values=(0.0, 255.0)), lambda: make_classifier(classes=3)),
        ]
    if method == "adr":
        pair = [*wrong.junk(), each(tuple, lambda: (0.5,), lambda: (-1.0, 1.0), lambda: ("a", 1.0), lambda: 0.5)]
        wrongs |= {"interpolation": [*pair, each(lambda: (0.5, 1.5))], "temperature": [*pair, each(lambda: (0.0, 1.0))]}
        wrongs["rebat_weight"] = wrong.number()
    if method in ("bgat", "hat"):
        wrongs["helper_weight"] = wrong.number(exclusive=method == "hat")
        wrongs["helper_step"] = wrong.number(exclusive=True)
    if method in ("bgat", "lbgat"):
        wrongs["guidance"] = _GUIDANCE
        if method == "bgat":
            wrongs["robust_guide"] = [*wrong.classifier(optional=True), each(lambda: make_classifier(classes=3))]
            wrongs["robust_weight"] = wrong.number(exclusive=True)
        wrongs["regularizer"] = wrong.choice(*losses.REGULARIZERS, optional=True)
        wrongs["regularizer_weight"] = wrong.number(optional=True)
        own = {"regularizer": "trades", "regularizer_weight": 1.0}
    weight = "guide_ce_weight" if method == "lbgat" else kind.weight_name
    if weight:
        wrongs[weight] = wrong.number(exclusive=method in ("trades", "mart", "hat"))
    wrongs["options"] = wrong.junk("none")
    wrongs["seed"] = wrong.count(0, optional=True)
    wrongs["patience"] = wrong.count(optional=True)

    def make() -> tuple[Any, ...]:
        classifier = make_classifier()
        arguments: dict[str, Any] = {"classifier": classifier, **own}
        if method != "natural":
            arguments["attack"] = pgd(classifier)
        if kind.takes_guide:
            arguments["guide"] = make_classifier(seed=1)
        return kind, arguments

    return Call(kind.__name__, make, wrongs)


_VALIDATION = [
    *wrong.junk("none"),
    changes(lambda v: v[0], lambda v: (*v, None), lambda v: (v[0], v[1][:-1]), lambda v: (v[0][:0], v[1][:0])),
    changes(lambda v: (v[0] * 300, v[1]), lambda v: (v[0], v[1] + 9), lambda _: (None, None), lambda v: (v[1], v[0])),
    changes(lambda v: (v[0][:, :, 1:], v[1]), lambda v: (v[0] * math.nan, v[1]), lambda v: [v[0], "a"]),
]
_FIT: dict[str, list[Strategy]] = {
    "validation_data": _VALIDATION,
    "nb_epochs": wrong.count(optional=True),
    "scheduler_interval": wrong.choice("epoch", "batch", optional=True),
    "scheduler": [*wrong.junk("none"), each(lambda: "cosines", lambda: [None], lambda: _foreign_scheduler())],
    "augmentation": [
        *wrong.junk("none", "function", "type"),
        each(lambda: "crop+flop", lambda: "crop+crop", lambda: "", lambda: 3),
    ],
}


def _foreign_scheduler() -> Any:
    return torch.optim.lr_scheduler.StepLR(make_classifier(seed=7).optimizer, 1)


def _fit(method: str) -> Call:
    def make() -> tuple[Any, ...]:
        classifier, guide = make_classifier(), make_classifier(seed=1)
        x, y = make_data(2 * N)
        arguments = {"x": x, "y": y, "batch_size": 4, "nb_epochs": 1}
        return TRAINERS[method](classifier, guide).fit, arguments, classifier, guide

    split = [
        *wrong.junk("none", "number", "array"),
        values(st.floats(max_value=-1e-9)),
        values(st.floats(min_value=1)),
        *_NAN,
    ]
    wrongs = {
        "x": wrong.images(),
        "y": wrong.labels(CLASSES),
        "batch_size": wrong.count(optional=True),
        "validation_split": split,
    }
    return Call(f"{_CLASSES[method]}.fit", make, {**wrongs, **_FIT, "validation_data": _VALIDATION[:-3]})


def _fit_validated() -> Call:
    def make() -> tuple[Any, ...]:
        classifier = make_classifier()
        x, y = make_data(N)
        arguments = {"x": x, "y": y, "validation_data": make_data(4, seed=3), "nb_epochs": 1}
        return TRAINERS["madry"](classifier).fit, arguments, classifier

    return Call("BaseTrainer.fit with validation", make, {"validation_data": _VALIDATION})


def _loader(label: int = 0, pixel: float = 0.5, parts: int = 2) -> Any:
    x, y = torch.full((N, 1, 8, 8), pixel), torch.full((N,), label)
    return DataLoader(TensorDataset(*(x, y)[:parts]), batch_size=3)


def _fit_loader() -> Call:
    """A loader instead of arrays."""

    def make() -> tuple[Any, ...]:
        classifier = make_classifier()
        return TRAINERS["madry"](classifier).fit, {"x": _loader(), "nb_epochs": 1}, classifier

    bad = [
        each(
            lambda: _loader(label=9), lambda: _loader(label=-1), lambda: _loader(pixel=7.0), lambda: _loader(pixel=-1.0)
        ),
        each(lambda: _loader(parts=1), lambda: DataLoader(TensorDataset(torch.zeros(4, 1, 4, 4), torch.zeros(4)))),
        each(lambda: TensorDataset(torch.zeros(4, 1, 8, 8)), lambda: DataLoader([1, 2, 3])),
    ]
    wrongs = {"x": bad, "y": wrong.junk("none"), "batch_size": wrong.count(optional=True)}
    return Call("BaseTrainer.fit of a loader", make, wrongs, says={"x": "x|y"})  # its labels are y


def _fit_generator(method: str) -> Call:
    def make() -> tuple[Any, ...]:
        classifier, guide = make_classifier(), make_classifier(seed=1)
        trainer = TRAINERS[method](classifier, guide)
        generator = PyTorchDataGenerator(_loader(), size=N, batch_size=3)
        arguments = {"generator": generator, "nb_epochs": 1}
        return trainer.fit_generator, arguments, classifier, guide

    bad = [*wrong.junk(), each(_loader, lambda: make_data(4)), changes(lambda g: g.iterator)]
    return Call(
        f"{_CLASSES[method]}.fit_generator", make, {"generator": bad, **_FIT, "validation_data": _VALIDATION[:-3]}
    )


def _options() -> list[Call]:
    schedule: dict[str, list[Strategy]] = {
        "milestones": [
            *wrong.junk("none"),
            each(
                lambda: (2, 1), lambda: (0, 1), lambda: (1, 1), lambda: (1.5,), lambda: 3, lambda: [None], lambda: "12"
            ),
        ],
        "gamma": wrong.number(exclusive=True, maximum=1.0),
        "first_epoch_factor": wrong.number(exclusive=True),
    }

    curve = {"warmup": [*wrong.number(), each(lambda: 1.0)], "final": wrong.number(maximum=1.0)}

    def factory() -> tuple[Any, ...]:
        optimizer = make_classifier().optimizer
        return (lambda optimizer: StepSchedule((2,))(optimizer)), {"optimizer": optimizer}

    return [
        Call("RunOptions", lambda: (RunOptions, {}), _RUN),
        Call("StepSchedule", lambda: (StepSchedule, {"milestones": (2, 4)}), schedule),
        Call("StepSchedule.__call__", factory, {"optimizer": wrong.kind()}),
        Call("StepSchedule.factor", lambda: (StepSchedule((2,)).factor, {"epoch": 1}), {"epoch": wrong.count()}),
        *(Call(kind.__name__, lambda kind=kind: (kind, {"warmup": 0.1}), curve) for kind in (OneCycle, Cosine)),
        Call("OneCycle.factor", lambda: (OneCycle().factor, {"share": 0.5}), {}),
    ]


def _attacks() -> Iterator[Call]:
    radius = [
        *wrong.junk("number"),
        *wrong.number()[-4:-1],
        each(lambda: np.array([0.1, math.nan]), lambda: np.zeros((2, 2)), lambda: np.array([]), lambda: [0.1, -0.1]),
    ]
    common = {
        "estimator": wrong.classifier(),
        "norm": wrong.norm(),
        "eps": [*radius, each(lambda: 1.5, lambda: 8.0, lambda: np.array([0.1, 2.0]))],
        "eps_step": [*radius, each(lambda: 0.0, lambda: np.array([0.1, 0.0]))],
        "max_iter": wrong.count(0),
        "batch_size": wrong.count(),
        "verbose": wrong.flag(),
    }
    own = {
        "PGDAttack": {"num_random_init": wrong.count(0), "objective": wrong.choice("ce", "cw", "kl")},
        "NFGSMAttack": {
            "noise": wrong.number(exclusive=True),
            "eps_step": wrong.number(optional=True, exclusive=True),
        },
        "TRADESAttack": {"num_random_init": wrong.count(), "start_std": wrong.number(optional=True)},
    }
    for name, more in own.items():
        kind = getattr(attacks, name)
        yield Call(name, lambda kind=kind: (kind, {"estimator": make_classifier()}), {**common, **more})

        def built(kind: Any, method: str, tensors: bool) -> tuple[Any, ...]:
            attack = kind(make_classifier(), eps=0.1, eps_step=0.05, max_iter=2)
            x, y = make_data(N)
            pair = {"x": torch.from_numpy(x), "y": torch.from_numpy(y)} if tensors else {"x": x, "y": y}
            return getattr(attack, method), pair, attack.estimator

        yield Call(
            f"{name}.generate",
            lambda kind=kind: built(kind, "generate", tensors=False),
            {"x": wrong.images(), "y": wrong.labels(CLASSES, optional=True)},
        )
        yield Call(
            f"{name}.perturb",
            lambda kind=kind: built(kind, "perturb", tensors=True),
            {
                "x": wrong.image_tensor(),
                "y": wrong.label_tensor(CLASSES, optional=True),
                "generator": wrong.generator(),
            },
        )
    ascent = {"norm": math.inf, "eps": 0.1, "eps_step": 0.02, "max_iter": 3}
    yield Call(
        "Ascent",
        lambda: (attacks.Ascent, dict(ascent)),
        {
            "norm": wrong.norm(),
            "eps": [*wrong.junk("number"), each(lambda: math.nan, lambda: -0.1, lambda: np.zeros(3), lambda: True)],
            "eps_step": [*wrong.junk("number"), each(lambda: math.nan, lambda: -0.1, lambda: "0.1")],
            "max_iter": wrong.count(0),
            "objective": wrong.choice("ce", "kl", "cw", "estimator"),
            "start": wrong.choice("none", "uniform", "gaussian"),
            "start_std": wrong.number(),
            "restarts": wrong.count(),
            "rule": wrong.choice("published", "art"),
        },
    )

    def read() -> tuple[Any, ...]:
        classifier = make_classifier()
        return attacks.read_attack, {"attack": pgd(classifier), "view": TensorView(classifier)}

    yield Call("read_attack", read, {"attack": wrong.kind(), "view": [*wrong.kind(), each(make_classifier)]})


def _objectives() -> Iterator[Call]:
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, N, CLASSES, generator=generator)
    y = torch.arange(N) % CLASSES
    takes: dict[str, tuple[str, ...]] = {
        "mse": ("adversarial", "guide"),
        "mse_ce": ("adversarial", "guide", "y"),
        "kd": ("adversarial", "guide", "y", "temperature", "weight"),
        "kl": ("adversarial", "guide", "y"),
        "guide_cross_entropy": ("guide", "y", "weight"),
        "alp": ("adversarial", "natural", "weight"),
        "trades": ("adversarial", "natural", "weight"),
        "mart": ("adversarial", "natural", "y", "weight"),
        "rectified_labels": ("average", "y", "interpolation", "temperature"),
        "nuclear": ("adversarial", "guide"),
        "rslad": ("adversarial", "guide", "natural"),
        "teacher_kl": ("adversarial", "teacher", "weight"),
        "helper_cross_entropy": ("helper", "guide", "weight"),
        "adversarial_cross_entropy": ("adversarial", "y", "weight"),
        "boosted_cross_entropy": ("adversarial", "y"),
        "natural_cross_entropy": ("natural", "y", "weight"),
    }
    wrongs = {
        "y": [*wrong.label_tensor(CLASSES), changes(lambda y: y.int(), lambda y: y.numpy(), lambda y: y.float())],
        **dict.fromkeys(("weight", "interpolation"), wrong.number()),
        "temperature": wrong.number(exclusive=True),
    }
    for name, names in takes.items():
        right = {
            "adversarial": one,
            "guide": two,
            "natural": two,
            "helper": one,
            "average": two,
            "teacher": two,
            "interpolation": 0.5,
            "y": y,
            "weight": 0.5,
            "temperature": 2.0,
        }
        more = {"weight": wrong.number(maximum=1.0)} if name == "kd" else {}
        yield Call(
            name,
            lambda name=name, names=names, right=right: (
                getattr(losses, name),
                {each: right[each].clone() if isinstance(right[each], torch.Tensor) else right[each] for each in names},
            ),
            {each: {**wrongs, **more}.get(each) or wrong.logits(alone=len(LOGITS & set(names)) == 1) for each in names},
        )
    yield Call(
        "IKL",
        lambda: (losses.IKL, {"alpha": 4.0, "beta": 20.0, "temperature": 4.0, "gamma": 1.0, "of": "guide"}),
        {
            **dict.fromkeys(("alpha", "beta"), wrong.number()),
            **dict.fromkeys(("temperature", "gamma"), wrong.number(exclusive=True)),
            "of": wrong.choice("guide", "natural"),
        },
    )
    terms = {"a": losses.Term(torch.tensor(1.0), 1.0)}
    bad = [
        *wrong.junk(),
        each(
            dict,
            lambda: {"a": losses.Term(torch.tensor(1.0), 0.0)},
            lambda: {"a": torch.tensor(1.0)},
            lambda: {"a": losses.Term("1", 1.0)},
            lambda: {"a": losses.Term(torch.tensor(1.0), "1")},
            lambda: {"a": losses.Term(torch.tensor(1.0), math.nan)},
            lambda: {"a": losses.Term(torch.ones(3), 1.0)},
            lambda: [losses.Term(torch.tensor(1.0), 1.0)],
        ),
    ]
    yield Call("total", lambda: (losses.total, {"terms": dict(terms)}), {"terms": bad})
    yield Call(
        "check_guidance",
        lambda: (
            losses.check_guidance,
            {"guidance": losses.mse, "nb_classes": 4, "device": torch.device("cpu")},
        ),
        {
            "guidance": [*wrong.junk(), *_GUIDANCE[-1:]],
            "nb_classes": wrong.count(2),
            "device": wrong.junk(),
        },
    )


def calls() -> list[Call]:
    """The part of the table."""
    trainers = [make(method) for make in (_constructor, _fit, _fit_generator) for method in TRAINERS]
    return [*trainers, _fit_validated(), _fit_loader(), *_options(), *_attacks(), *_objectives()]
