"""The ART contract, shared by every method: what goes in is checked, what comes out is as ART promises."""

from __future__ import annotations

import abc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from art.attacks.attack import EvasionAttack
from art.data_generators import DataGenerator
from art.defences.trainer import Trainer
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor

from art_lbgat.checks import check_count, check_number
from art_lbgat.classifier import TensorView
from art_lbgat.data.augmentation import Augmentation
from art_lbgat.data.streams import Stream, as_stream
from art_lbgat.engine.batchnorm import batchnorm_synchronized
from art_lbgat.engine.cost import Cost, step_cost
from art_lbgat.engine.history import History
from art_lbgat.engine.joint import Joint
from art_lbgat.engine.options import RunFields, RunOptions, check_keyword, run_options
from art_lbgat.engine.selection import States
from art_lbgat.engine.step import clear_gradients
from art_lbgat.losses import Terms
from art_lbgat.preserve import Modes, plain_autograd, preserved_modes, preserved_randomness
from art_lbgat.processes import join_processes
from art_lbgat.trainers import checks
from art_lbgat.trainers.adversary import Adversary
from art_lbgat.trainers.fitting import fit_stream
from art_lbgat.trainers.inputs import Natural
from art_lbgat.trainers.validation import held_out, warn_overlap

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)

_FIT_KEYWORDS = ["validation_data", "batch_size", "nb_epochs", "scheduler", "augmentation", "validation_split"]


class BaseTrainer(Trainer, abc.ABC):
    """Trains one robust classifier, with or without guides; a method adds its loss terms and nothing else.

    One step, in this order: ``x_adv`` from the raw student in eval mode; student in train mode, forward ``x_adv``,
    then ``x`` where the method needs it; forward ``x`` through the guides; loss; one backward; each trained classifier
    steps its own optimizer. The classifier is trained in place. Model modes, ``requires_grad`` flags and global random
    generators are left as found, also after an exception.

    :param classifier: The classifier to make robust, with an optimizer.
    :param attack: The attack that makes ``x_adv``, or None to train on natural images only.
    :param guides: The guides, or none.
    :param train_guides: Whether the guides are trained as well.
    :param cache_guide: Whether the logits of frozen guides are kept from the first epoch for the later ones.
    :param natural: What the method needs of ``M_r(x)``: ``"none"``, its ``"value"``, or its ``"graph"`` for gradients.
    :param options: A :class:`~art_lbgat.engine.options.RunOptions`.
    :param run: Its fields as keywords instead.
    :raises TypeError: Arguments of the wrong type.
    :raises ValueError: Arguments that do not fit each other.
    """

    title: ClassVar[str]

    def __init__(
        self,
        classifier: PyTorchClassifier,
        attack: EvasionAttack | None,
        *,
        guides: Sequence[PyTorchClassifier] = (),
        train_guides: bool = False,
        cache_guide: bool = False,
        natural: Natural,
        options: RunOptions | None,
        run: RunFields,
    ) -> None:
        super().__init__(classifier)
        self.options = run_options(options, run)
        self._view = TensorView(classifier, "classifier")
        self._attack = None if attack is None else checks.check_attack(attack, self._view)
        names = ["guide"] if len(guides) == 1 else [f"guide[{i}]" for i in range(len(guides))]
        self._guides = [TensorView(guide, name) for guide, name in zip(guides, names, strict=True)]
        for guide in self._guides:
            checks.check_guide(guide, self._view)
        self._train_guides, self._natural, self._cache_guide = train_guides, natural, cache_guide
        self._joint = Joint(self._view.module, [guide.module for guide in self._guides], train_guides)
        self._history = History()
        self._fits = 0
        self._begun: dict[int, dict[str, Any]] = {}
        self.seed: int | None = self.options.seed
        #: Weights of the last ``fit`` that are not in the classifiers, by kind and classifier (see :meth:`fit`).
        self.kept_weights: dict[str, States] = {}

    @abc.abstractmethod
    def _terms(self, logits: Mapping[str, Tensor], y: Tensor, y_guide: Tensor) -> Terms:
        """The named loss terms of one step.

        :param logits: ``"adversarial"``, ``"natural"``, ``"guide"``: what this method asked for, each ``(N, C)``.
        :param y: Labels of the student, indices ``(N,)`` or probabilities ``(N, C)``.
        :param y_guide: Labels of the guide.
        """

    @property
    def attack(self) -> EvasionAttack | None:
        """The attack that makes the training examples."""
        return self._attack

    @property
    def history(self) -> pandas.DataFrame:
        """A row per epoch of every fit: loss terms, accuracies in [0, 1], learning rates, seconds, images/s."""
        return self._history.frame()

    @property
    def cost(self) -> Cost | None:
        """Passes of one training step, or None where the attack runs through ``attack.generate`` and is not known.

        With AWP, of a step from its first epoch on; with cached guides, of a step after the first epoch; with
        ``max_iter_warmup_epochs``, of a step after them. With an attack that stops early the most that a step takes:
        the measured means are ``attack_steps`` and ``attack_passes`` of the history.
        """
        forwards = backwards = 0
        if self._attack is not None:
            ascent = Adversary(self._attack, self._view).ascent
            if ascent is None:
                return None
            forwards, backwards = ascent.forwards(), ascent.backwards()
        return step_cost(
            attack_forwards=forwards,
            attack_backwards=backwards,
            adversarial=self._attack is not None,
            natural=self._natural,
            guides=len(self._guides),
            train_guides=self._train_guides,
            cached_guides=self._cache_guide,
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
        validation_data: tuple[Any, Any] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        scheduler: Any = None,
        augmentation: Augmentation | str | None = None,
        validation_split: float = 0.0,
        **kwargs: Any,
    ) -> None:
        """Train on arrays, or on a torch ``DataLoader`` or ``Dataset`` of ``(x, y)`` pairs (with ``y=None``).

        Afterwards the classifiers hold the weights that ``options.keep`` asks for, the averaged ones with
        ``ema_decay``; ``kept_weights`` holds the others: ``"best"`` and ``"last"`` with ``keep="both"``, and ``"raw"``,
        the last weights before averaging, with ``ema_decay``, each a state dict by name of the classifier.

        :param x: Raw inputs, ``(n, *input_shape)``, inside ``clip_values``; or a loader or data set.
        :param y: Labels: indices ``(n,)``, one-hot or soft rows ``(n, nb_classes)``.
        :param validation_data: ``(x, y)`` to judge each epoch on (natural accuracy and PGD-20); the weights kept at the
            end are those of the best epoch, unless ``keep="last"``.
        :param batch_size: Samples per batch; the last partial batch is trained too.
        :param nb_epochs: Number of epochs.
        :param scheduler: A learning-rate scheduler, or a list of them, stepped at the end of each epoch; or a function
            from an optimizer to a scheduler (such as :class:`~art_lbgat.engine.schedule.StepSchedule`), called for
            each trained optimizer.
        :param augmentation: ``(x, generator) -> x``, applied to each batch before the attack; or a name such as
            ``"crop+flip"`` (see :func:`art_lbgat.data.make_augmentation`).
        :param validation_split: Share of ``(x, y)`` in (0, 1) that is held out, the same share of each class, and
            used as ``validation_data``; 0 holds nothing out.
        :param kwargs: None is taken; a misspelt one is refused.
        :raises TypeError: Wrong types, or an unknown keyword.
        :raises ValueError: Bad data (see :mod:`art_lbgat.checks`), no optimizer, a foreign scheduler.
        """
        self._refuse(kwargs)
        if check_number(validation_split, "validation_split"):
            x, y, validation_data = held_out(x, y, validation_data, validation_split, self._view, self.options.seed)
        elif validation_data is not None:
            warn_overlap(x, y, validation_data, self._view)
        if self._cache_guide:
            checks.check_unaugmented(augmentation, "cache_guide")
        if self.options.warm_start and self._attack is not None:
            checks.check_unaugmented(augmentation, "warm_start")
        self._processes = join_processes(self._view.device)
        avoid_single = self._normalizes_batches()
        stream = as_stream(x, y, batch_size, self._view, augmentation, avoid_single, self._processes)
        self._fit(stream, nb_epochs, validation_data, batch_size, scheduler)

    def fit_generator(
        self,
        generator: DataGenerator,
        nb_epochs: int = 20,
        validation_data: tuple[Any, Any] | None = None,
        scheduler: Any = None,
        augmentation: Augmentation | str | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on an ART ``DataGenerator``: ``ceil(size / batch_size)`` calls of ``get_batch`` per epoch.

        :param generator: The generator; only ``get_batch``, ``size`` and ``batch_size`` are used.
        :param nb_epochs: Number of epochs.
        :param validation_data: As in :meth:`fit`.
        :param scheduler: As in :meth:`fit`.
        :param augmentation: As in :meth:`fit`.
        :param kwargs: None is taken; a misspelt one is refused.
        :raises TypeError: If ``generator`` is no ``DataGenerator``, or an unknown keyword.
        :raises ValueError: A generator without a size, or bad data.
        """
        self._refuse(kwargs)
        if not isinstance(generator, DataGenerator):
            raise TypeError(f"generator: expected an ART DataGenerator, got {type(generator).__name__}.")
        self._processes = join_processes(self._view.device)
        stream = as_stream(generator, None, generator.batch_size, self._view, augmentation, self._normalizes_batches())
        self._fit(stream, nb_epochs, validation_data, generator.batch_size, scheduler)

    def _fit(self, stream: Stream, nb_epochs: int, validation_data: Any, batch_size: int, scheduler: Any) -> None:
        check_count(nb_epochs, "nb_epochs")
        for view in (self._view, *self._guides):
            view.refresh()
        fit_stream(self, stream, nb_epochs, validation_data, batch_size, scheduler)

    def _trained(self) -> list[TensorView]:
        return [self._view, *(self._guides if self._train_guides else [])]

    def _prepare_adversary(self) -> Adversary | None:
        if self._attack is None:
            return None
        adversary = Adversary(checks.check_attack(self._attack, self._view), self._view)
        adversary.log_way()
        if adversary.ascent is None:
            checks.check_free_of_the_loop(self.options, adversary.reason)
        return adversary

    @contextmanager
    def _polite(self, *, synchronized: bool) -> Iterator[list[Modes]]:
        """Everything global as found afterwards; no ambient autocast, no_grad or inference mode inside."""
        with ExitStack() as stack:
            stack.enter_context(preserved_randomness())
            if synchronized:
                stack.enter_context(batchnorm_synchronized(self._joint.trained()))
            # The wrapper too: ART sets its training flag beside the module's.
            views = [self._view, *self._guides]
            modes = stack.enter_context(preserved_modes([view.module for view in views]))
            stack.enter_context(preserved_modes([view.classifier._model for view in views]))
            stack.enter_context(plain_autograd(self._view.device))
            stack.enter_context(_untouched(self._attack))
            stack.callback(clear_gradients, self._joint.trained())
            yield modes

    def _normalizes_batches(self) -> bool:
        return any(Modes(view.module).normalizes_batches() for view in self._trained())

    def _refuse(self, kwargs: dict[str, Any]) -> None:
        for name in kwargs:
            check_keyword(name, _FIT_KEYWORDS)


@contextmanager
def _untouched(attack: EvasionAttack | None) -> Iterator[None]:
    """An ART attack without its progress bar for a while; its own eps afterwards (``random_eps`` draws anew)."""
    verbose = getattr(attack, "verbose", False)
    worker = getattr(attack, "_attack", attack)
    found = {name: getattr(worker, name) for name in ("eps", "eps_step") if hasattr(worker, name)}
    if attack is not None and verbose:
        attack.set_params(verbose=False)
    try:
        yield
    finally:
        for name, value in found.items():
            setattr(worker, name, value)
        if attack is not None and verbose:
            attack.set_params(verbose=verbose)
