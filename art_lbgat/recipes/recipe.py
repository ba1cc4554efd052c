"""One recipe: every hyper-parameter of a training run, checked, with the published result beside it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from art_lbgat.checks import (
    check_choice,
    check_count,
    check_flag,
    check_kind,
    check_name,
    check_norm,
    check_number,
    check_path,
    check_text,
)
from art_lbgat.data import make_augmentation
from art_lbgat.data.datasets import LOADERS
from art_lbgat.engine.cost import Cost, step_cost
from art_lbgat.engine.options import RunOptions, check_keyword
from art_lbgat.engine.schedule import SCHEDULES, Cosine, OneCycle, StepSchedule
from art_lbgat.files import write_text
from art_lbgat.losses import GUIDANCE, REGULARIZERS
from art_lbgat.recipes.build import CALL_FIELDS, Experiment, build
from art_lbgat.trainers import METHODS
from art_lbgat.trainers.guided import GuidedTrainer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NONE = "none"  # how None is written in TOML, which has no null, and on a command line
RUN_FIELDS = tuple(each.name for each in fields(RunOptions) if each.name not in CALL_FIELDS)
_HOST_FIELDS = ("precision", "channels_last", "compile", "checkpoint_every", "keep_checkpoints")


@dataclass(frozen=True)
class PublishedResult:
    """What was reported for a recipe, in percent.

    :param natural: Natural accuracy.
    :param autoattack: Accuracy under standard AutoAttack at the recipe's eps, or None.
    :param pgd_20: Accuracy under PGD-20, or None.
    :param source: Where it was reported.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside [0, 100].
    """

    natural: float
    autoattack: float | None = None
    pgd_20: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("natural", "autoattack", "pgd_20"):
            value = getattr(self, name)
            if (value is not None or name == "natural") and check_number(value, name) > 100:
                raise ValueError(f"{name}: expected percent, in [0, 100], got {value}.")
        check_text(self.source, "source")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, except seed, device and where the data lies.

    :param id: Its name.
    :param method: A name in ``METHODS``, such as ``"madry"``, ``"trades"``, ``"bgat"``, ``"lbgat"`` or ``"hat"``.
    :param data: A name that :func:`art_lbgat.data.load_data` knows.
    :param model: The robust model, a name that :func:`art_lbgat.models.create_model` knows.
    :param guides: The guides' models: one for ``lbgat``, one or several for ``bgat`` and ``hat``, none otherwise.
    :param guide_recipe: Id of the recipe that trains frozen guides.
    :param sub_block1: Build ``wrn-*`` models with the unused block that released LBGAT weights hold.
    :param guidance: A name in ``GUIDANCE``, such as ``"mse"``, ``"mse+ce"``, ``"kd"``, ``"kl"`` or ``"ikl"``.
    :param kd_temperature: Temperature ``T`` of ``"kd"``.
    :param kd_weight: Weight ``b`` of ``"kd"``.
    :param guide_rms: Root mean square that the frozen guide's logits are scaled to (``bgat``); None leaves them.
    :param guide_ce_weight: Weight of the guide's cross-entropy (``lbgat``).
    :param regularizer: ``None``, ``"alp"``, ``"trades"``, ``"ikl"`` or ``"gkl"`` (``bgat``, ``lbgat``).
    :param weight: Weight of the regularizer, or of the second term of ``alp``, ``trades`` or ``mart``; None is the
        published one.
    :param norm: ``"inf"`` or ``"2"``.
    :param eps: Radius in units of [0, 1].
    :param eps_step: Length of an attack step; None is ``2.5 * eps / max_iter`` (``1.25 * eps`` for ``fast-at``, ``eps``
        for ``n-fgsm``).
    :param max_iter: Attack steps in training.
    :param attack_mode: The mode of the model while it is attacked: ``"eval"`` (running batch-norm statistics) always.
    :param batch_size: Samples per step.
    :param nb_epochs: Epochs.
    :param learning_rate: Of SGD, like the next three.
    :param momentum: Momentum.
    :param weight_decay: Weight decay.
    :param nesterov: Nesterov momentum.
    :param decay_norms: Whether weights of normalisation layers and biases decay too.
    :param label_smoothing: Of the method's own cross-entropy: of the guide (``lbgat``), and in ``"mse+ce"``.
    :param scheduler: ``"step"``, by the next three fields, or ``"one-cycle"`` or ``"cosine"`` over the whole run.
    :param milestones: Epochs after which the learning rate falls.
    :param lr_gamma: Its factor at each milestone.
    :param first_epoch_factor: Its factor in the first epoch.
    :param lr_warmup: Share of the run up to the peak of the other two; None is 0.25 and 0.
    :param augmentation: A name that :func:`art_lbgat.data.make_augmentation` knows.
    :param image_size: Images are resized to this by the loader of the data, where it can (Tiny ImageNet); or None.
    :param run: How to run (AWP, weight averaging, which epoch is kept, precision, ...); its ``selection="test"``
        chooses the epoch on the test set, as some papers did, and then all training data are trained on.
    :param published: What was reported, or None.
    :param source: Where the hyper-parameters come from.
    :param notes: What a reader must know.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: An unknown name, a value outside its range, values that do not fit each other.
    """

    id: str
    method: str
    data: str
    model: str
    guides: tuple[str, ...] = ()
    guide_recipe: str | None = None
    sub_block1: bool = False
    guidance: str = "mse"
    kd_temperature: float = 4.0
    kd_weight: float = 0.1
    guide_ce_weight: float = 1.0
    guide_rms: float | None = None
    regularizer: str | None = None
    weight: float | None = None
    norm: str = "inf"
    eps: float = 0.031
    eps_step: float | None = 0.007
    max_iter: int = 10
    attack_mode: str = "eval"
    batch_size: int = 128
    nb_epochs: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    nesterov: bool = False
    decay_norms: bool = True
    label_smoothing: float = 0.0
    scheduler: str = "step"
    milestones: tuple[int, ...] = (75, 90)
    lr_gamma: float = 0.1
    first_epoch_factor: float = 1.0
    lr_warmup: float | None = None
    augmentation: str = "crop+flip"
    image_size: int | None = None
    run: RunOptions = field(default_factory=RunOptions)
    published: PublishedResult | None = None
    source: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        norm = check_norm(2 if isinstance(self.norm, str) and self.norm in ("2", "2.0") else self.norm)
        object.__setattr__(self, "norm", "inf" if norm == math.inf else "2")
        self._check_types()
        check_name(self.id, "id")
        for name, choices in _CHOICES.items():
            check_choice(getattr(self, name), name, choices)
        if not self.model:
            raise ValueError("model: expected the name of a network, got ''.")
        make_augmentation(self.augmentation, 2, argument="augmentation")
        for name in ("lr_gamma", "kd_weight", "label_smoothing"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}: expected at most 1, got {getattr(self, name)}.")
        if self.eps > 1 and self.norm != "2":
            raise ValueError(f"eps: expected units of [0, 1], got {self.eps:g}; divide 0-255 units by 255.")
        for name in CALL_FIELDS:
            if getattr(self.run, name) != _DEFAULTS[name]:
                raise ValueError(f"run: {name} belongs to one run, not to a recipe; expected it in build({name}=...).")
        self._check_method()
        _ = self.schedule  # checked there

    def _check_types(self) -> None:
        for each in fields(self):
            kind, value = str(each.type), getattr(self, each.name)
            check = _CHECKS.get(kind.removesuffix(" | None"))
            if check is not None and (value is not None or "None" not in kind):
                check(value, each.name, **({"exclusive": True} if each.name in _POSITIVE else {}))
        if not isinstance(self.guides, tuple) or not all(isinstance(each, str) for each in self.guides):
            raise TypeError(f"guides: expected a tuple of names of networks, got {self.guides!r}.")
        if not isinstance(self.milestones, tuple):
            raise TypeError(f"milestones: expected a tuple of epochs, got {self.milestones!r}.")

    def _check_method(self) -> None:
        """Refuse what the method would ignore, so that no recipe says one thing and trains another."""
        method = METHODS[self.method]
        guided, count = issubclass(method, GuidedTrainer), len(self.guides)
        expected, most = ("one guide", 1) if method.train_guides else ("one guide or several", count)
        if not (1 <= count <= most if method.takes_guide else count == 0):
            expected = expected if method.takes_guide else "no guide"
            raise ValueError(f"guides: expected {expected} for method {self.method!r}, got {self.guides}.")
        ignored = {
            "regularizer": not guided,
            "guidance": not guided,
            "guide_rms": not guided or method.train_guides,
            "weight": method.weight_name is None and self.regularizer is None,
            "label_smoothing": not (method.takes_loss or method.train_guides or self.guidance == "mse+ce"),
            "lr_warmup": self.scheduler == "step",
        }
        whys = {"lr_warmup": "with scheduler='step'", **({"weight": "without a regularizer"} if guided else {})}
        for name in (name for name, wrong in ignored.items() if wrong):
            if getattr(self, name) != _DEFAULTS[name]:
                what = whys.get(name, f"for method {self.method!r}")
                raise ValueError(f"{name}: expected the default {what}, which ignores it, got {getattr(self, name)!r}.")

    @property
    def attack(self) -> Literal["trades", "n-fgsm", "pgd"] | None:
        """Which attack makes the training examples: that of TRADES or N-FGSM where it is the method's, PGD, or none."""
        kind, _ = METHODS[self.method].needs(self.regularizer, None, self.guidance)
        return None if kind == "none" else "pgd" if kind == "fgsm" else kind

    @property
    def step(self) -> float:
        """Length of an attack step."""
        if self.eps_step is not None:
            return self.eps_step
        single = {"fgsm": 1.25, "n-fgsm": 1.0}.get(METHODS[self.method].attack_kind)
        return 2.5 * self.eps / self.max_iter if single is None else single * self.eps

    @property
    def regularizer_weight(self) -> float | None:
        """The weight in force; None for methods without one."""
        if self.weight is not None:
            return self.weight
        method = METHODS[self.method]
        return method.published_weight if self.regularizer is None else method.regularizer_weights[self.regularizer]

    @property
    def objective(self) -> str:
        """The objective in words of the field, such as ``"LBGAT + TRADES (a=6) + AWP"``."""
        text = METHODS[self.method].title
        if METHODS[self.method].weight_name is not None and self.method != "alp":
            text += f" (a={self.regularizer_weight:g})"
        if self.guidance != "mse":
            text += f" [{self.guidance}]"
        if self.regularizer is not None:
            text += f" + {self.regularizer.upper()}"
            text += f" (a={self.regularizer_weight:g})" if self.regularizer == "trades" or self.weight else ""
        return text + (" + AWP" if self.run.awp_gamma else "") + (" + EMA" if self.run.ema_decay else "")

    @property
    def schedule(self) -> StepSchedule | OneCycle:
        """The learning-rate schedule."""
        if self.scheduler == "step":
            return StepSchedule(self.milestones, self.lr_gamma, self.first_epoch_factor)
        kind = OneCycle if self.scheduler == "one-cycle" else Cosine
        return kind() if self.lr_warmup is None else kind(self.lr_warmup)

    @property
    def cost(self) -> Cost:
        """Passes of one training step (with AWP, from its first epoch on; of those in ``run`` with the most steps)."""
        method, steps = METHODS[self.method], self.run.most_steps or self.max_iter
        attack = (steps + (self.attack == "trades"), steps) if self.attack is not None else None
        return step_cost(
            attack,
            method.needs(self.regularizer, self.regularizer_weight, self.guidance)[1],
            guides=len(self.guides),
            train_guides=method.train_guides,
            perturbs_weights=self.run.awp_gamma is not None,
        )

    def override(self, **changes: Any) -> Recipe:
        """The recipe with other values in some fields; without its published result, which is no longer its own.

        :param changes: Fields of the recipe and of its ``run``, by name, and their new values.
        """
        for name in changes:
            check_keyword(name, [*_DEFAULTS, "run"], "recipe: field")
        values = {name: _plain(name, value) for name, value in changes.items()}
        run = {name: values.pop(name) for name in (*RUN_FIELDS, *CALL_FIELDS) if name in values}
        whole = check_kind(values.get("run", self.run), "run", RunOptions)
        found = replace(self, **{**values, "run": replace(whole, **run)})
        same = replace(found, id=self.id, notes=self.notes) == self  # compared once each value is known to fit
        return found if same or "published" in values else replace(found, published=None)

    def scaled(self, nb_epochs: int) -> Recipe:
        """The recipe for another number of epochs: milestones, warm-up and the start of AWP keep their share of it.

        What is a share of the run stays as it is. With few epochs, milestones that fall on the same epoch become one.

        :param nb_epochs: The number of epochs.
        """
        check_count(nb_epochs, "nb_epochs")
        share = nb_epochs / self.nb_epochs
        return self.override(
            nb_epochs=nb_epochs,
            milestones=tuple(sorted({max(1, round(each * share)) for each in self.milestones})),
            eps_warmup_epochs=round(self.run.eps_warmup_epochs * share),
            awp_start_epoch=max(1, round(self.run.awp_start_epoch * share)),
        )

    def for_guide(self, model: str | None = None) -> Recipe:
        """The recipe that trains a frozen guide of this one: the same data, run as this one runs.

        :param model: Which of the guides; None leaves the model of the guide's recipe.
        :raises ValueError: If ``guide_recipe`` names none.
        """
        if self.guide_recipe not in RECIPES:
            expected = "trained weights (guide_weights=...) or the id of a recipe to train them by"
            raise ValueError(
                f"guide_recipe: {self.id} has frozen guides, so it needs {expected}; got {self.guide_recipe!r}."
            )
        found = RECIPES[self.guide_recipe]
        if found.attack is not None:  # a robust guide, of the same ball
            found = found.override(**{name: getattr(self, name) for name in ("norm", "eps", "eps_step", "max_iter")})
        run = {name: getattr(self.run, name) for name in (*_HOST_FIELDS, "selection")}
        return found.override(model=model or found.model, data=self.data, image_size=self.image_size, **run)

    def build(self, root: str | Path | None = None, **options: Any) -> Experiment:
        """Classifier, guides, trainer and data, ready to ``fit``; global random generators are unchanged.

        :param root: Where the data lies; None for the digits.
        :param options: ``seed``, ``data`` (a :class:`~art_lbgat.data.DataSet` in place of ``root``), ``limit`` (so many
            training images), ``guide_weights`` (a file or state dict, or one for each guide), ``device_type``, and what
            of :class:`~art_lbgat.RunOptions` belongs to one run, such as ``verbose``, ``checkpoint_dir``, ``resume``.
        :raises FileNotFoundError: Missing data or weights.
        """
        return build(self, root, **options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; those of ``run`` in a dictionary of their own."""
        values = {name: getattr(self, name) for name in _OWN_FIELDS}
        values["run"] = {name: _listed(getattr(self.run, name)) for name in RUN_FIELDS}
        values["published"] = None if self.published is None else asdict(self.published)
        return {name: _listed(value) for name, value in values.items()}

    def as_toml(self) -> dict[str, Any]:
        """Plain values without None, which TOML lacks: left out, or ``"none"`` where the default is another value."""
        return _without_null(self.as_dict())

    def save(self, path: str | Path) -> None:
        """Write the recipe as TOML, every field by name.

        :param path: The file; one that exists is replaced.
        """
        write_toml(path, self.as_toml())

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read what :meth:`save` wrote, or the ``config.toml`` of a run; fields that are left out have their defaults.

        :param path: The file.
        :raises TypeError: An unknown field (with the nearest that exists), or one in the wrong table.
        :raises ValueError: No TOML, or a value that does not fit.
        """
        values = read_toml(path)
        values.pop("training", None)  # seed, root and so on, in the configuration of a run
        run = check_kind(values.pop("run", {}), "run", dict)
        for name in values:
            if name in RUN_FIELDS:
                raise TypeError(f"path: {path} has {name} at the top; expected it in the table [run].")
            check_keyword(name, _OWN_FIELDS, "recipe: field")
        for name in run:
            if name in _OWN_FIELDS:
                raise TypeError(f"path: {path} has {name} in the table [run]; expected it at the top.")
            check_keyword(name, RUN_FIELDS, "run: field")
        missing = [name for name in ("id", "method", "data", "model") if name not in values]
        if missing:
            raise ValueError(f"path: {path} lacks {', '.join(missing)}.")
        own = {name: _plain(name, value) for name, value in values.items()}
        return cls(**own, run=RunOptions(**{name: _plain(name, value) for name, value in run.items()}))


#: Every recipe by its id; filled by ``art_lbgat.recipes``.
RECIPES: dict[str, Recipe] = {}

_OWN_FIELDS = tuple(each.name for each in fields(Recipe) if each.name != "run")
_TYPES = {each.name: str(each.type) for each in (*fields(RunOptions), *fields(Recipe)) if each.name != "run"}
_DEFAULTS = {each.name: each.default for each in (*fields(RunOptions), *fields(Recipe)) if each.name != "run"}
_CHECKS: dict[str, Callable[..., Any]] = {
    "str": check_text,
    "bool": check_flag,
    "int": check_count,
    "float": check_number,
    "RunOptions": partial(check_kind, kind=RunOptions),
    "PublishedResult": partial(check_kind, kind=PublishedResult),
}
_POSITIVE = ("guide_rms", "eps", "eps_step", "learning_rate", "lr_gamma", "kd_temperature")
_CHOICES: dict[str, Any] = {
    "method": METHODS,
    "data": LOADERS,
    "guidance": GUIDANCE,
    "scheduler": SCHEDULES,
    "regularizer": (None, *REGULARIZERS),
    "attack_mode": ("eval",),
}


def read_toml(path: str | Path) -> dict[str, Any]:
    """What a TOML file holds."""
    path = check_path(path, "path")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"path: there is no file {path}.") from error
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise ValueError(f"path: {path} is no TOML file ({error or type(error).__name__}).") from error


def read_value(text: str, argument: str) -> Any:
    """A value as a command line has it: TOML, or text without quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        if text.strip()[:1] in ("[", "{", '"', "'"):
            raise ValueError(f"{argument}: expected a value as in TOML, got {text!r}.") from None
        return text.strip()


def write_toml(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write plain values as TOML; a file that exists is replaced, as a whole or not at all."""
    import tomli_w

    path = check_path(path, "path")
    if path.suffix.lower() in (".yaml", ".yml"):
        raise ValueError(f"path: recipes are written as TOML; expected a name that ends in .toml, got {path}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: there is no directory {path.parent} to write {path.name} to.")
    write_text(path, tomli_w.dumps(values))


def _plain(name: str, value: Any) -> Any:
    """What a file or a terminal gives, as the dataclasses have it."""
    kind = _TYPES.get(name, "")
    if isinstance(value, str) and value == NONE and "None" in kind:
        return None
    if name == "published" and isinstance(value, Mapping):
        return PublishedResult(**value)
    if "tuple" in kind:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if "float" in kind and isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return float(value)  # numpy's numbers cannot be written to a file
    return value


def _listed(value: Any) -> Any:
    """Lists for tuples, as a file has them."""
    return [_listed(each) for each in value] if isinstance(value, tuple) else value


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in values.items() if value is not None or _DEFAULTS.get(name) is not None}
    nested = {name: _without_null(value) for name, value in said.items() if isinstance(value, Mapping)}
    return {name: NONE if value is None else nested.get(name, value) for name, value in said.items()}
