"""The ART contract, shared by every method: what goes in is checked, what comes out is as ART promises."""

from __future__ import annotations

import abc
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from art.attacks.attack import EvasionAttack
from art.data_generators import DataGenerator
from art.defences.trainer import Trainer
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.attacks import NFGSMAttack, PGDAttack, TRADESAttack
from art_lbgat.checks import check_count, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.data import Augmentation, Stream, as_stream
from art_lbgat.engine.adversary import Adversary
from art_lbgat.engine.checkpoint import Checkpoints
from art_lbgat.engine.cost import Cost, step_cost
from art_lbgat.engine.options import RunOptions, run_options
from art_lbgat.engine.run import Run
from art_lbgat.engine.schedule import OneCycle
from art_lbgat.engine.step import Method, Natural, Passes
from art_lbgat.engine.validation import States, Validation
from art_lbgat.fingerprint import (
    MAY_CHANGE,
    described,
    module_layout,
    optimizer_settings,
    surroundings,
    weights_sha256,
)
from art_lbgat.losses import IKL, CrossEntropy, Terms
from art_lbgat.preserve import Key, Modes, draw_seed
from art_lbgat.processes import Processes, join_processes
from art_lbgat.trainers import inputs

if TYPE_CHECKING:
    import pandas
    from typing_extensions import Self

AttackKind = Literal["pgd", "trades", "fgsm", "n-fgsm", "none"]
_GENERATOR_KEYWORDS = ["nb_epochs", "validation_data", "scheduler", "augmentation", "scheduler_interval"]
_FIT_KEYWORDS = [*_GENERATOR_KEYWORDS, "batch_size", "validation_split"]
#: Attributes that do not decide the bits of a run.
_NOT_SETTINGS = (
    "options",
    "seed",
    "kept_weights",
    "guide",
    "robust_guide",
    "verbose",
    "on_probabilities",
    "run_defaults",
    "takes_loss",
)
#: What changes in a scheduler as it goes on.
_PROGRESS = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "best", "num_bad_epochs",
             "cooldown_counter", "base_lrs", "max_lrs", "T_cur", "T_i", "_is_initial")  # fmt: skip


class BaseTrainer(Trainer, abc.ABC):
    """Trains one robust classifier, with or without guides; a method declares what is its own, and nothing else.

    A method is a subclass with a ``title``, ``terms``, and what differs from the class attributes below. One step, in
    this order: ``x_adv`` from the raw student in eval mode; student in train mode, forward ``x_adv``, then ``x`` where
    the method needs it; forward ``x`` through the guides; loss; one backward; each trained classifier steps its own
    optimizer. The classifier is trained in place. Model modes, ``requires_grad`` flags and global random generators
    are left as found, also after an exception.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: The attack that makes ``x_adv``; None is the method's own.
    :param guides: The guides, or none.
    :param needs: The method's own attack and passes, where they are not those of :meth:`needs` without arguments.
    :param epoch_losses: The losses among its terms that learn from epochs.
    :param options: A :class:`~art_lbgat.engine.options.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: Arguments that do not fit each other.
    """

    #: The name of the method in tables and messages.
    title: ClassVar[str]
    #: The attack that ``attack=None`` stands for, with the published settings (see :func:`default_attack`).
    attack_kind: ClassVar[AttackKind] = "pgd"
    #: What the loss needs of ``M_r(x)``: nothing, its value, or its graph for gradients.
    natural: ClassVar[Natural] = "none"
    #: Whether the cross-entropy of its terms is that of the classifier (:attr:`cross_entropy`); else it is a plain one.
    takes_loss: bool = False
    #: Whether its terms depend on ``softmax(logits)`` alone, so that a model may end in softmax.
    on_probabilities: bool = False
    #: Whether it has a guide, and whether that is trained as well.
    takes_guide: ClassVar[bool] = False
    train_guides: ClassVar[bool] = False
    #: What makes other labels for attack and loss; see :class:`~art_lbgat.engine.step.Method`.
    labels: Callable[[Mapping[str, Tensor], Tensor, float], Tensor] | None = None
    #: What ``max_grad_norm`` and ``eps_warmup`` are where they are None; what it lacks is off.
    run_defaults: Mapping[str, float] = {}
    #: The argument that weights the second term of the loss, and its published value.
    weight_name: ClassVar[str | None] = None
    published_weight: ClassVar[float | None] = None
    #: The regularizers that the method takes, and their published weights.
    regularizer_weights: ClassVar[Mapping[str, float]] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:  # noqa: ARG004 (Python gives both)
        """Refuse what ART's constructors take by position, before Python counts."""
        inputs.refuse_arts_order(cls.__init__, args)
        return object.__new__(cls)

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None,
        *,
        guides: Sequence[PyTorchClassifier] = (),
        needs: tuple[AttackKind, Passes] | None = None,
        epoch_losses: Sequence[IKL] = (),
        options: RunOptions | None,
        run: Mapping[str, Any],
    ) -> None:
        super().__init__(classifier)
        inputs.refuse_arts(run)
        self.options = run_options(options, run)
        self._view = TensorView(classifier, "classifier")
        kind, passes = self.needs() if needs is None else needs
        attack = default_attack(kind, classifier) if attack is None else attack
        self._attack = None if attack is None else inputs.check_attack(attack, self._view)
        others = len(guides) - passes.robust_guides
        names = ["guide"] if others == 1 else [f"guide[{i}]" for i in range(others)]
        names += ["robust_guide"] * passes.robust_guides
        self._guides = [TensorView(guide, name) for guide, name in zip(guides, names, strict=True)]
        for guide in self._guides:
            inputs.check_guide(guide, self._view)
        self._method = Method(self.title, self.terms, passes, self.train_guides, epoch_losses, self.labels)
        self._rows: list[dict[str, Any]] = []
        self._fits = 0
        self._begun: dict[int, dict[str, Any]] = {}
        self.seed: int | None = self.options.seed
        #: Weights of the last ``fit`` that are not in the classifiers, by kind and classifier (see :meth:`fit`).
        self.kept_weights: dict[str, States] = {}

    @abc.abstractmethod
    def terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """The named loss terms of one step: the method.

        :param logits: ``"adversarial"``, ``"natural"``, ``"guide"`` and others: what it needs, each ``(N, C)``.
        :param y: Labels of the student, indices ``(N,)`` or probabilities ``(N, C)``.
        :param y_guide: Labels of the guide.
        """

    @classmethod
    def needs(
        cls, regularizer: str | None = None, weight: float | None = None, guidance: Any = None
    ) -> tuple[AttackKind, Passes]:
        """The method's own attack, and the passes of its loss; a weight of 0 needs no graph of ``M_r(x)``.

        :param regularizer: The name of the regularizer, for methods that take one.
        :param weight: Its weight, or that of the method's second term; None is the published one.
        :param guidance: The guidance loss or its name, for methods that take one.
        """
        off = weight == 0 and cls.weight_name is not None and cls.natural == "graph"
        return cls.attack_kind, Passes("value" if off else cls.natural)

    @property
    def cross_entropy(self) -> CrossEntropy:
        """``CE(logits, y)`` as the classifier's CrossEntropyLoss has it, with weights, smoothing and reduction."""
        return self._view.cross_entropy

    @property
    def attack(self) -> EvasionAttack | None:
        """The attack that makes the training examples."""
        return self._attack

    @property
    def fits(self) -> int:
        """How many fits there were; with ``checkpoint_dir`` one counts when it has ended, since it may be resumed."""
        return self._fits

    @property
    def history(self) -> pandas.DataFrame:
        """A row per epoch of every fit: loss terms, accuracies in [0, 1], learning rates, seconds, images/s.

        A value that an epoch does not have is NaN.
        """
        import pandas

        return pandas.DataFrame(self._rows)

    @property
    def cost(self) -> Cost | None:
        """Passes of one training step, or None where the attack runs through ``attack.generate`` and is not known.

        With AWP, of a step from its first epoch on; with ``max_iter_schedule``, of one with the most attack steps.
        """
        passes = None
        if self._attack is not None:
            ascent = Adversary(self._attack, self._view).ascent
            if ascent is None:
                return None
            ascent = dataclasses.replace(ascent, max_iter=self.options.most_steps or ascent.max_iter)
            passes = ascent.forwards(), ascent.backwards()
        return step_cost(
            passes,
            self._method.passes,
            guides=len(self._guides),
            train_guides=self.train_guides,
            perturbs_weights=self.options.awp_gamma is not None,
        )

    def predict(self, x: NDArray[Any], **kwargs: Any) -> NDArray[Any]:
        """``classifier.predict(x, **kwargs)``, as ART's trainers offer it.

        :param x: Raw inputs, ``(n, *input_shape)``.
        :param kwargs: What ``classifier.predict`` takes.
        """
        return self._view.classifier.predict(x, **kwargs)  # type: ignore[no-any-return]

    def fit(
        self,
        x: Any,
        y: Any = None,
        validation_data: Any = None,
        batch_size: int | None = None,
        nb_epochs: int | None = None,
        scheduler: Any = None,
        augmentation: Augmentation | str | None = None,
        validation_split: float = 0.0,
        scheduler_interval: Literal["epoch", "batch"] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on arrays, or on a torch ``DataLoader`` or ``Dataset`` of ``(x, y)`` pairs (with ``y=None``).

        Afterwards the classifiers hold the weights that ``options.keep`` asks for, the averaged ones with
        ``ema_decay``; then ``kept_weights["raw"]`` holds the last weights before averaging, a state dict by name of
        the classifier.

        :param x: Raw inputs, ``(n, *input_shape)``, inside ``clip_values``; or a loader or data set.
        :param y: Labels: indices ``(n,)``, one-hot or soft rows ``(n, nb_classes)``.
        :param validation_data: ``(x, y)``, or a loader or data set that is read once, to judge each epoch on (natural
            accuracy and PGD-20); the weights kept at the end are those of the best epoch, unless ``keep="last"``.
        :param batch_size: Samples per batch, 128 if left out; the last partial batch is trained too.
        :param nb_epochs: Number of epochs, 20 if left out.
        :param scheduler: A schedule of the learning rate over the run, whose peak is that of each optimizer:
            ``"one-cycle"`` or ``"cosine"`` (:class:`~art_lbgat.engine.schedule.OneCycle`, ``Cosine``), ``"step"``
            (a tenth after 75 % and 90 % of the epochs). Or a scheduler of torch, or a list of them; or a function from
            an optimizer to a scheduler (such as :class:`~art_lbgat.engine.schedule.StepSchedule`), called for each
            trained optimizer.
        :param augmentation: ``(x, generator) -> x``, applied to each batch before the attack; or a name such as
            ``"crop+flip"`` (see :func:`art_lbgat.data.make_augmentation`).
        :param validation_split: Share of ``(x, y)`` in (0, 1) that is held out, the same share of each class, and
            used as ``validation_data``; 0 holds nothing out.
        :param scheduler_interval: When a scheduler of torch steps: after each ``"batch"``, or at the end of each
            ``"epoch"``; None is the former where its ``total_steps`` (or ``T_max``) is that of all steps of the run.
        :param kwargs: ``verbose`` for this fit alone, and what scripts for ART's trainers have (see
            docs/howto-art-pipeline.md); any other is refused.
        :raises TypeError: Wrong types, or an unknown keyword.
        :raises ValueError: Bad data (see :mod:`art_lbgat.checks`), no optimizer, a foreign scheduler.
        """
        verbose = inputs.bar_of_fit(kwargs, _FIT_KEYWORDS, self.options.verbose)
        validation_data, batch_size, nb_epochs = inputs.fit_in_order(validation_data, batch_size, nb_epochs)
        if check_number(validation_split, "validation_split"):
            x, y, validation_data = inputs.held_out(
                x, y, validation_data, validation_split, self._view, self.options.seed
            )
        elif validation_data is not None:
            validation_data = inputs.read_validation(validation_data, self._view, batch_size)
            inputs.warn_overlap(x, y, validation_data, self._view)
        processes = join_processes(self._view.device)
        stream = as_stream(x, y, batch_size, self._view, augmentation, self._normalizes_batches(), processes)
        self._fit(stream, processes, nb_epochs, validation_data, batch_size, scheduler, scheduler_interval, verbose)

    def fit_generator(
        self,
        generator: DataGenerator,
        nb_epochs: int = 20,
        validation_data: Any = None,
        scheduler: Any = None,
        augmentation: Augmentation | str | None = None,
        scheduler_interval: Literal["epoch", "batch"] | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on an ART ``DataGenerator``: ``ceil(size / batch_size)`` calls of ``get_batch`` per epoch.

        The order of ART's TRADES trainer (``scheduler`` third) and AWP trainer (``validation_data`` second) works too.

        :param generator: The generator; only ``get_batch``, ``size`` and ``batch_size`` are used.
        :param nb_epochs: Number of epochs.
        :param validation_data: As in :meth:`fit`.
        :param scheduler: As in :meth:`fit`.
        :param augmentation: As in :meth:`fit`.
        :param scheduler_interval: As in :meth:`fit`.
        :param kwargs: As in :meth:`fit`.
        :raises TypeError: If ``generator`` is no ``DataGenerator``, or an unknown keyword.
        :raises ValueError: A generator without a size, or bad data.
        """
        verbose = inputs.bar_of_fit(kwargs, _GENERATOR_KEYWORDS, self.options.verbose)
        nb_epochs, validation_data, scheduler = inputs.in_order(nb_epochs, validation_data, scheduler)
        if not isinstance(generator, DataGenerator):
            raise TypeError(f"generator: expected an ART DataGenerator, got {type(generator).__name__}.")
        processes, size = join_processes(self._view.device), generator.batch_size
        stream = as_stream(generator, None, size, self._view, augmentation, self._normalizes_batches())
        self._fit(stream, processes, nb_epochs, validation_data, size, scheduler, scheduler_interval, verbose)

    def _fit(
        self,
        stream: Stream,
        processes: Processes,
        nb_epochs: int,
        validation_data: Any,
        batch_size: int,
        scheduler: Any,
        interval: str | None,
        verbose: bool,
    ) -> None:
        """Check what is left to check, and hand the parts of one fit to the engine."""
        check_count(nb_epochs, "nb_epochs")
        for view in (self._view, *self._guides):
            view.refresh(self.on_probabilities)
        validation = inputs.as_validation(validation_data, self._view, batch_size)
        optimizers = inputs.check_optimizers(self._trained())
        scheduler = inputs.read_schedule(scheduler, nb_epochs)
        schedule = scheduler if isinstance(scheduler, OneCycle) else None
        schedulers = inputs.check_schedulers(None if schedule else scheduler, optimizers)
        intervals = inputs.intervals(schedulers, interval, nb_epochs, stream.steps)
        if schedule and interval:
            raise ValueError(
                f"scheduler_interval: expected None, as {schedule} changes at every step, got {interval!r}."
            )
        options = self._settled(stream)
        curves = schedule or options.depends_on_length or type(self).labels is not None  # which follow the run
        length = nb_epochs if curves else None
        if length and stream.steps is None:
            raise ValueError(
                "x: its length is not known, and the schedule of the run (scheduler=, eps_warmup, max_iter_schedule or "
                "ema_start) follows the share of all steps; expected data with a length."
            )
        inputs.check_run(options, self._view, optimizers, schedulers, processes, batch_size, validation is not None)
        alone = self.weight_name is None and not self.takes_guide
        inputs.check_loss(self._view, self.takes_loss, alone, processes)
        for guide in self._guides if self.train_guides else []:
            inputs.check_loss(guide, True, False, processes)
        if self._attack is not None:
            inputs.check_attack(self._attack, self._view)
        number = self._fits + 1
        scheduling = [scheduler, *schedulers, {"interval": intervals}]
        checkpoints = self._checkpoints(number, stream, validation, optimizers, scheduling, length, processes, options)
        if checkpoints is None:
            self._fits = number
        self._check_same_start(stream, processes)
        seed = draw_seed() if self.options.seed is None else self.options.seed
        # Rows of a fit that was cut off are brought back by its checkpoint.
        self._rows[:] = [row for row in self._rows if row["fit"] < number]
        run = Run(
            self._method,
            self._view,
            self._guides,
            self._attack,
            optimizers,
            schedule,
            list(zip(schedulers, intervals, strict=True)),
            dataclasses.replace(options, verbose=verbose),
            processes,
            stream=stream,
            nb_epochs=nb_epochs,
            batch_size=batch_size,
            validation=validation,
            key=Key(processes.from_main(seed), number),
            history=self._rows,
            checkpoints=checkpoints,
        )
        try:
            self.kept_weights = run.train()
        finally:
            self.seed = run.key.seed  # of a checkpoint, if the run went on from one
        self._fits = number

    def _settled(self, stream: Stream) -> RunOptions:
        """The options of one fit; a warm-up of the method's own only where attack and data can follow it."""
        own = dict(self.run_defaults)
        ascent = None if self._attack is None else Adversary(self._attack, self._view).ascent
        if ascent is None or stream.steps is None:
            own.pop("eps_warmup", None)
        return self.options.settled(own)

    def _trained(self) -> list[TensorView]:
        return [self._view, *(self._guides if self.train_guides else [])]

    def _normalizes_batches(self) -> bool:
        return any(Modes(view.module).normalizes_batches() for view in self._trained())

    def _check_same_start(self, stream: Stream, processes: Processes) -> None:
        if processes.world > 1:
            weights = [weights_sha256(view.module) for view in (self._view, *self._guides)]
            processes.check_same(
                zlib.crc32(f"{weights}{stream.fingerprint()}".encode()),
                "classifier, guide or x: they differ between the processes; expected the same weights (built of one "
                "seed) and the same data in all of them.",
            )

    def _checkpoints(
        self,
        number: int,
        stream: Stream,
        validation: Validation | None,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        length: int | None,
        processes: Processes,
        options: RunOptions,
    ) -> Checkpoints | None:
        """The checkpoints of fit ``number``, with everything that its bits depend on, by what the user calls it.

        Weights of what is trained are no part of that, since a checkpoint brings them; those of frozen guides are.
        """
        if options.checkpoint_dir is None:
            return None
        run = {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        settings = {
            "trainer": type(self).__qualname__,
            "method": {name: described(value) for name, value in own.items() if name not in _NOT_SETTINGS},
            "options": {name: described(value) for name, value in run.items() if name not in MAY_CHANGE},
            "attack": None if self._attack is None else _attack_settings(self._attack),
            "classifier": _classifier_settings(self._view, frozen=False),
            "guides": [_classifier_settings(guide, frozen=not self.train_guides) for guide in self._guides],
            "optimizers": [optimizer_settings(optimizer) for optimizer in optimizers],
            "scheduler": [_scheduler_settings(each) for each in schedulers],
            "epochs of the schedule": length,
            "data": stream.fingerprint(),
            "validation_data": None if validation is None else validation.sha256,
        }
        # What schedulers have made of the optimizers since this fit was begun is no change of settings.
        begun = self._begun.setdefault(number, settings)
        settings |= {name: begun[name] for name in ("optimizers", "scheduler")}
        root = Path(options.checkpoint_dir) / f"fit-{number:03d}"
        return Checkpoints(root, number, settings, surroundings(processes.world))


def default_attack(kind: AttackKind, classifier: PyTorchClassifier) -> EvasionAttack | None:
    """The published attack of a kind: Linf, times the range of ``clip_values``; None for ``"none"``.

    ``"pgd"`` (cross-entropy) and ``"trades"`` (KL): eps 0.031, 10 steps of 0.007, as in the code of TRADES and LBGAT.
    ``"fgsm"``: eps 8/255, one step of 1.25 eps from a uniform start (arXiv 2001.03994). ``"n-fgsm"``: eps 8/255, one
    step of eps from a start in 2 eps, not projected (arXiv 2202.01181).

    :param kind: Which.
    :param classifier: The classifier to attack.
    """
    scale = TensorView(classifier).value_range()
    published: dict[AttackKind, Callable[[], EvasionAttack | None]] = {
        "pgd": lambda: PGDAttack(classifier, eps=0.031 * scale, eps_step=0.007 * scale, max_iter=10),
        "trades": lambda: TRADESAttack(classifier, eps=0.031 * scale, eps_step=0.007 * scale, max_iter=10),
        "fgsm": lambda: PGDAttack(classifier, eps=8 / 255 * scale, eps_step=1.25 * 8 / 255 * scale, max_iter=1),
        "n-fgsm": lambda: NFGSMAttack(classifier, eps=8 / 255 * scale),
        "none": lambda: None,
    }
    return published[kind]()


def _scheduler_settings(scheduler: Any) -> Any:
    """A scheduler by its kind and settings, however far it has come."""
    if not hasattr(scheduler, "state_dict"):
        return described(scheduler)
    return {"type": type(scheduler).__qualname__, **_without_progress(scheduler.state_dict())}


def _without_progress(state: Any) -> Any:
    if isinstance(state, dict):
        return {str(k): _without_progress(v) for k, v in state.items() if k not in _PROGRESS}
    return [_without_progress(each) for each in state] if isinstance(state, (list, tuple)) else described(state)


def _attack_settings(attack: EvasionAttack) -> dict[str, Any]:
    names = [name for name in attack.attack_params if name not in _NOT_SETTINGS]
    return {"type": type(attack).__qualname__, **{name: described(getattr(attack, name, None)) for name in names}}


def _classifier_settings(view: TensorView, *, frozen: bool) -> dict[str, Any]:
    classifier = view.classifier
    others = {"loss": view.loss_settings, "processor": getattr(classifier, "processor", None)}
    found = {
        "layout": module_layout(view.module),
        "input_shape": described(tuple(classifier.input_shape)),
        "nb_classes": classifier.nb_classes,
        "clip_values": described(classifier.clip_values),
        **{k: described(v) for k, v in others.items() if v},
        "preprocessing": [
            [type(each).__qualname__, {k: described(v) for k, v in vars(each).items() if k != "_device"}]
            for each in view.operations
        ],
    }
    return {**found, "weights": weights_sha256(view.module)} if frozen else found
