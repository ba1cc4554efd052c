"""One recipe: every hyper-parameter of a training run, checked, with the published result beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from art_lbgat.checks import (
    check_choice,
    check_count,
    check_flag,
    check_kind,
    check_name,
    check_norm,
    check_number,
    check_text,
)
from art_lbgat.data import make_augmentation
from art_lbgat.data.datasets import LOADERS
from art_lbgat.engine.cost import Cost, step_cost
from art_lbgat.engine.options import RunOptions, run_options
from art_lbgat.engine.schedule import StepSchedule
from art_lbgat.losses import GUIDANCE, REGULARIZERS
from art_lbgat.recipes.files import NONE, is_toml, read_mapping, without_null, write_mapping

if TYPE_CHECKING:
    from art_lbgat.recipes.experiment import Experiment

Method = Literal["natural", "madry", "alp", "trades", "mart", "fast-at", "bgat", "lbgat"]
METHODS: tuple[Method, ...] = ("natural", "madry", "alp", "trades", "mart", "fast-at", "bgat", "lbgat")
_DEFAULT_WEIGHTS = {"alp": 1.0, "trades": 6.0, "mart": 5.0}


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
    :param method: ``"natural"``, ``"madry"``, ``"alp"``, ``"trades"``, ``"mart"``, ``"fast-at"``, ``"bgat"`` or
        ``"lbgat"``.
    :param data: A name that :func:`art_lbgat.data.load_data` knows.
    :param model: The robust model, a name that :func:`art_lbgat.models.create_model` knows.
    :param guides: The guides' models: one for ``lbgat``, one or several for ``bgat``, none otherwise.
    :param guide_recipe: Id of the recipe that trains the frozen guides of ``bgat``.
    :param sub_block1: Build ``wrn-*`` models with the unused block that released LBGAT weights hold.
    :param cache_guide: See :class:`~art_lbgat.BGATTrainer`.
    :param guidance: ``"mse"``, ``"mse+ce"``, ``"kd"`` or ``"kl"``.
    :param kd_temperature: Temperature ``T`` of ``"kd"``.
    :param kd_weight: Weight ``b`` of ``"kd"``.
    :param guide_ce_weight: Weight of the guide's cross-entropy (``lbgat``).
    :param regularizer: ``None``, ``"alp"`` or ``"trades"`` (``bgat``, ``lbgat``).
    :param weight: Weight of the regularizer, of ``alp``, ``trades`` or ``mart``; None is the published one (1, 6, 5).
    :param norm: ``"inf"`` or ``"2"``.
    :param eps: Radius in units of [0, 1].
    :param eps_step: Length of an attack step; None is ``2.5 * eps / max_iter`` (``1.25 * eps`` for ``fast-at``).
    :param max_iter: Attack steps in training.
    :param attack_mode: The mode of the model while it is attacked: ``"eval"`` (running batch-norm statistics) always.
    :param batch_size: Samples per step.
    :param nb_epochs: Epochs.
    :param learning_rate: Of SGD.
    :param momentum: Of SGD.
    :param weight_decay: Of SGD, on every parameter.
    :param nesterov: Of SGD.
    :param milestones: Epochs after which the learning rate falls.
    :param lr_gamma: Its factor at each milestone.
    :param first_epoch_factor: Its factor in the first epoch.
    :param augmentation: A name that :func:`art_lbgat.data.make_augmentation` knows.
    :param image_size: Images are resized to this by the loader of the data, where it can (Tiny ImageNet); or None.
    :param eps_warmup_epochs: See :class:`~art_lbgat.RunOptions`, like what follows up to ``selection``.
    :param max_grad_norm: Gradient clipping.
    :param awp_gamma: Adversarial weight perturbation.
    :param awp_start_epoch: Its first epoch.
    :param ema_decay: Moving average of the weights.
    :param keep: Which epoch is kept.
    :param patience: Early stopping.
    :param on_collapse: What a collapse of robust accuracy does.
    :param validate_every: How often an epoch is validated.
    :param selection: ``"validation"`` selects on held-out data; ``"test"`` on the test set, as some papers did, and
        then all training data are trained on.
    :param published: What was reported, or None.
    :param source: Where the hyper-parameters come from.
    :param notes: What a reader must know.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: An unknown name, a value outside its range, values that do not fit each other.
    """

    id: str
    method: Method
    data: str
    model: str
    guides: tuple[str, ...] = ()
    guide_recipe: str | None = None
    sub_block1: bool = False
    cache_guide: bool = False
    guidance: str = "mse"
    kd_temperature: float = 4.0
    kd_weight: float = 0.1
    guide_ce_weight: float = 1.0
    regularizer: str | None = None
    weight: float | None = None
    norm: str = "inf"
    eps: float = 0.031
    eps_step: float | None = 0.007
    max_iter: int = 10
    attack_mode: Literal["eval"] = "eval"
    batch_size: int = 128
    nb_epochs: int = 100
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    nesterov: bool = False
    milestones: tuple[int, ...] = (75, 90)
    lr_gamma: float = 0.1
    first_epoch_factor: float = 1.0
    augmentation: str = "crop+flip"
    image_size: int | None = None
    eps_warmup_epochs: int = 0
    max_grad_norm: float | None = None
    awp_gamma: float | None = None
    awp_start_epoch: int = 10
    ema_decay: float | None = None
    keep: Literal["best", "last", "both"] = "best"
    patience: int | None = None
    on_collapse: Literal["warn", "stop"] = "warn"
    validate_every: int = 1
    selection: Literal["validation", "test"] = "validation"
    published: PublishedResult | None = None
    source: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        check_choice(self.method, "method", METHODS)
        check_choice(self.guidance, "guidance", GUIDANCE)
        check_choice(self.regularizer, "regularizer", [None, *REGULARIZERS])
        check_choice(self.attack_mode, "attack_mode", ("eval",))
        norm = check_norm(2 if isinstance(self.norm, str) and self.norm in ("2", "2.0") else self.norm)
        object.__setattr__(self, "norm", "inf" if norm == math.inf else "2")
        check_name(self.id, "id")
        self._check_types()
        check_choice(self.data, "data", LOADERS)
        make_augmentation(self.augmentation, 2, argument="augmentation")
        self._check_method()
        for name in ("eps", "learning_rate", "kd_temperature"):
            check_number(getattr(self, name), name, exclusive=True)
        for name in ("guide_ce_weight", "momentum", "weight_decay", "kd_weight"):
            check_number(getattr(self, name), name)
        for name in ("weight", "eps_step"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, exclusive=name == "eps_step")
        for name in ("max_iter", "batch_size", "nb_epochs"):
            check_count(getattr(self, name), name)
        if self.eps > 1 and self.norm != "2":
            raise ValueError(f"eps: expected units of [0, 1], got {self.eps:g}; divide 0-255 units by 255.")
        _ = self.run_options(), self.schedule  # checked there

    def _check_types(self) -> None:
        """What the checks that follow take for granted."""
        for name in ("data", "model", "augmentation", "source", "notes"):
            check_text(getattr(self, name), name)
        if not self.model:
            raise ValueError("model: expected the name of a network, got ''.")
        if self.guide_recipe is not None:
            check_text(self.guide_recipe, "guide_recipe")
        for name in ("sub_block1", "cache_guide", "nesterov"):
            check_flag(getattr(self, name), name)
        if self.image_size is not None:
            check_count(self.image_size, "image_size")
        self._check_values()

    def _check_values(self) -> None:
        if not isinstance(self.guides, tuple) or not all(isinstance(each, str) for each in self.guides):
            raise TypeError(f"guides: expected a tuple of names of networks, got {self.guides!r}.")
        if not isinstance(self.milestones, tuple):
            raise TypeError(f"milestones: expected a tuple of epochs, got {self.milestones!r}.")
        if self.published is not None:
            check_kind(self.published, "published", PublishedResult)
        for name, value, exclusive in (("lr_gamma", self.lr_gamma, True), ("kd_weight", self.kd_weight, False)):
            if check_number(value, name, exclusive=exclusive) > 1:
                raise ValueError(f"{name}: expected at most 1, got {value}.")

    def _check_method(self) -> None:
        """Refuse what the method would ignore, so that no recipe says one thing and trains another."""
        guides = {"lbgat": self.guides[1:] == () and len(self.guides) == 1, "bgat": len(self.guides) >= 1}
        if not guides.get(self.method, not self.guides):
            expected = {"lbgat": "one guide", "bgat": "one guide or several"}.get(self.method, "no guide")
            raise ValueError(f"guides: expected {expected} for method {self.method!r}, got {self.guides}.")
        guided, weighted = self.method in ("bgat", "lbgat"), self.method in _DEFAULT_WEIGHTS
        foreign = {
            "regularizer": self.regularizer is not None and not guided,
            "guidance": self.guidance != "mse" and not guided,
            "cache_guide": self.cache_guide and self.method != "bgat",
            "weight": self.weight is not None and not weighted and self.regularizer is None,
        }
        for name in (name for name, wrong in foreign.items() if wrong):
            what = "without a regularizer" if guided and name == "weight" else f"for method {self.method!r}"
            raise ValueError(f"{name}: expected the default {what}, which ignores it, got {getattr(self, name)!r}.")

    @property
    def attack(self) -> Literal["trades", "pgd"] | None:
        """Which attack makes the training examples: TRADES' for its objective and regularizer, else PGD, or none."""
        if self.method == "natural":
            return None
        return "trades" if self.method == "trades" or self.regularizer == "trades" else "pgd"

    @property
    def step(self) -> float:
        """Length of an attack step."""
        if self.eps_step is not None:
            return self.eps_step
        return 1.25 * self.eps if self.method == "fast-at" else 2.5 * self.eps / self.max_iter

    @property
    def regularizer_weight(self) -> float | None:
        """The weight in force; None for methods without one."""
        kind = self.regularizer or self.method
        return self.weight if self.weight is not None else _DEFAULT_WEIGHTS.get(kind)

    @property
    def objective(self) -> str:
        """The objective in words of the field, such as ``"LBGAT + TRADES (a=6) + AWP"``."""
        names = {"natural": "Natural", "madry": "PGD-AT", "fast-at": "Fast-AT"}
        text = names.get(self.method, self.method.upper())
        if self.method in _DEFAULT_WEIGHTS and self.method != "alp":
            text += f" (a={self.regularizer_weight:g})"
        if self.guidance != "mse":
            text += f" [{self.guidance}]"
        if self.regularizer is not None:
            text += f" + {self.regularizer.upper()}"
            text += f" (a={self.regularizer_weight:g})" if self.regularizer == "trades" or self.weight else ""
        return text + (" + AWP" if self.awp_gamma else "") + (" + EMA" if self.ema_decay else "")

    @property
    def schedule(self) -> StepSchedule:
        """The learning-rate schedule."""
        return StepSchedule(self.milestones, self.lr_gamma, self.first_epoch_factor)

    @property
    def cost(self) -> Cost:
        """Passes of one training step (with AWP, from its first epoch on)."""
        kind = self.regularizer or self.method
        natural: Literal["none", "value", "graph"] = "none"
        if self.method in ("natural", "trades", "mart") or kind in ("alp", "trades"):
            natural = "graph" if self.method in ("natural", "mart") or self.regularizer_weight else "value"
        attacked = self.attack is not None
        return step_cost(
            attack_forwards=(self.max_iter + (self.attack == "trades")) if attacked else 0,
            attack_backwards=self.max_iter if attacked else 0,
            adversarial=attacked,
            natural=natural,
            guides=len(self.guides),
            train_guides=self.method == "lbgat",
            cached_guides=self.cache_guide,
            perturbs_weights=self.awp_gamma is not None,
        )

    def run_options(self, seed: int | None = None, verbose: bool = True, **run: Any) -> RunOptions:
        """How to run, as the trainers take it.

        :param seed: Seed of the run.
        :param verbose: Whether a progress bar is shown.
        :param run: Fields of :class:`~art_lbgat.RunOptions` that are none of the recipe, such as ``checkpoint_dir``.
        :raises TypeError: A field of the recipe, which ``override`` changes, or no field at all.
        """
        names = {field.name for field in fields(RunOptions)} & {field.name for field in fields(self)}
        own = [name for name in run if name in names]
        if own:
            raise TypeError(f"run: {own[0]} is a field of the recipe; expected it in override({own[0]}=...).")
        values: Any = {**{name: getattr(self, name) for name in names}, "seed": seed, "verbose": verbose, **run}
        return run_options(None, values)

    def override(self, **changes: Any) -> Recipe:
        """The recipe with other values in some fields; without its published result, which is no longer its own.

        :param changes: Fields and their new values.
        :raises TypeError: A field that does not exist, with the nearest that does.
        :raises ValueError: A value that does not fit.
        """
        _check_fields(changes)
        values = {name: _plain(name, value) for name, value in changes.items()}
        found = replace(self, **values)
        same = replace(found, id=self.id, notes=self.notes) == self  # compared once each value is known to fit
        return found if same or "published" in values else replace(found, published=None)

    def scaled(self, nb_epochs: int) -> Recipe:
        """The recipe for another number of epochs: milestones, warm-up and the start of AWP keep their share of it.

        With few epochs, milestones that fall on the same epoch become one.

        :param nb_epochs: The number of epochs.
        """
        check_count(nb_epochs, "nb_epochs")
        share = nb_epochs / self.nb_epochs
        milestones = sorted({max(1, round(m * share)) for m in self.milestones})
        return self.override(
            nb_epochs=nb_epochs,
            milestones=tuple(milestones),
            eps_warmup_epochs=round(self.eps_warmup_epochs * share),
            awp_start_epoch=max(1, round(self.awp_start_epoch * share)),
        )

    def build(self, root: str | Path | None = None, **options: Any) -> Experiment:
        """Classifier, guides, trainer and data, ready to ``fit``.

        :param root: Where the data lies; None for the digits.
        :param options: What ``art_lbgat.recipes.experiment.build`` takes: ``seed``, ``data``, ``limit``,
            ``guide_weights``, ``device_type``, ``verbose``, and ``run``, fields of :class:`~art_lbgat.RunOptions`.
        :return: The experiment.
        """
        from art_lbgat.recipes.experiment import build

        return build(self, root, **options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are saved."""
        values = asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def as_toml(self) -> dict[str, Any]:
        """Plain values without None, which TOML lacks: left out, or ``"none"`` where the default is another value."""
        defaults = {field.name: field.default for field in fields(self)}
        values = {k: NONE if v is None and defaults[k] is not None else v for k, v in self.as_dict().items()}
        return without_null(values)

    def save(self, path: str | Path) -> None:
        """Write the recipe as YAML, or as TOML where the name ends in ``.toml``; every field by name.

        :param path: The file; one that exists is replaced.
        """
        write_mapping(path, self.as_toml() if is_toml(path) else self.as_dict())

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read what :meth:`save` wrote; fields that are left out have their defaults, a table ``run`` is passed over.

        :param path: The file.
        :raises FileNotFoundError: If there is no such file.
        :raises TypeError: If it is no mapping, or has an unknown field (with the nearest that exists).
        :raises ValueError: If it is no YAML (or TOML), or has a value that does not fit.
        """
        values = read_mapping(path)
        if isinstance(values.get("run"), Mapping):
            del values["run"]  # how to run, in the configuration of a run
        _check_fields(values)
        missing = [name for name in ("id", "method", "data", "model") if name not in values]
        if missing:
            raise ValueError(f"path: {path} lacks {', '.join(missing)}.")
        return cls(**{name: _plain(name, value) for name, value in values.items()})


def _check_fields(values: Mapping[str, Any]) -> None:
    names = [field.name for field in fields(Recipe)]
    unknown = [name for name in values if name not in names]
    if unknown:
        try:
            check_choice(unknown[0], "field", names)
        except ValueError as error:
            raise TypeError(f"recipe: {error}") from None


def _plain(name: str, value: Any) -> Any:
    """What a file or a terminal gives, as the dataclass has it."""
    kind = str(next(field.type for field in fields(Recipe) if field.name == name))
    if isinstance(value, str) and value == NONE and kind.endswith("None"):
        return None
    if name == "published" and isinstance(value, Mapping):
        return PublishedResult(**value)
    if kind.startswith("tuple"):
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if kind.startswith("float") and not isinstance(value, (bool, type(None))):
        # YAML reads 5e-4 as a string; numpy's numbers cannot be written to it.
        with suppress(TypeError, ValueError):
            return float(value)
    return value
