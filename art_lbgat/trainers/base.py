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

from art_lbgat.bridge import TensorView
from art_lbgat.checks import check_count
from art_lbgat.data.augmentation import Augmentation
from art_lbgat.data.streams import Stream, as_stream
from art_lbgat.engine.cost import Cost
from art_lbgat.engine.history import History
from art_lbgat.engine.joint import Joint
from art_lbgat.engine.modes import Modes, plain_autograd, preserved_modes
from art_lbgat.engine.options import RunFields, RunOptions, check_keyword, run_options
from art_lbgat.engine.randomness import Key, draw_seed, preserved_randomness
from art_lbgat.engine.selection import Best
from art_lbgat.engine.step import clear_gradients, step_schedulers
from art_lbgat.objectives.terms import Terms
from art_lbgat.trainers import checks
from art_lbgat.trainers.adversary import Adversary, validation_adversary
from art_lbgat.trainers.loop import Loop, Natural
from art_lbgat.trainers.progress import Progress
from art_lbgat.trainers.validation import Validation

if TYPE_CHECKING:
    import pandas

logger = logging.getLogger(__name__)

_FIT_KEYWORDS = ["validation_data", "batch_size", "nb_epochs", "scheduler", "augmentation"]


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
        self._train_guides, self._natural = train_guides, natural
        self._joint = Joint(self._view.module, [guide.module for guide in self._guides], train_guides)
        self._history = History()
        self._fits = 0
        self.seed: int | None = self.options.seed

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
        """Passes of one training step, or None where the attack runs through ``attack.generate`` and is not known."""
        forwards = backwards = 0
        if self._attack is not None:
            ascent = Adversary(self._attack, self._view).ascent
            if ascent is None:
                return None
            forwards, backwards = ascent.forwards(), ascent.backwards()
        graphs = (self._attack is not None) + (self._natural == "graph")
        guides = len(self._guides)
        return Cost(
            student_forwards=forwards + graphs + (self._natural == "value"),
            student_input_backwards=backwards,
            student_full_backwards=graphs,
            guide_forwards=guides,
            guide_full_backwards=guides if self._train_guides else 0,
        )

    def predict(self, x: NDArray[Any], **kwargs: Any) -> NDArray[Any]:
        """``classifier.predict(x, **kwargs)``, as ART's trainers offer it."""
        return self._view.classifier.predict(x, **kwargs)  # type: ignore[no-any-return]

    def fit(
        self,
        x: Any,
        y: Any = None,
        validation_data: tuple[Any, Any] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        scheduler: Any = None,
        augmentation: Augmentation | None = None,
        **kwargs: Any,
    ) -> None:
        """Train on arrays, or on a torch ``DataLoader`` or ``Dataset`` of ``(x, y)`` pairs (with ``y=None``).

        :param x: Raw inputs, ``(n, *input_shape)``, inside ``clip_values``; or a loader or data set.
        :param y: Labels: indices ``(n,)``, one-hot or soft rows ``(n, nb_classes)``.
        :param validation_data: ``(x, y)`` to judge each epoch on (natural accuracy and PGD-20); the weights kept at the
            end are those of the best epoch, unless ``keep="last"``.
        :param batch_size: Samples per batch; the last partial batch is trained too.
        :param nb_epochs: Number of epochs.
        :param scheduler: A learning-rate scheduler, or a list of them; stepped at the end of each epoch.
        :param augmentation: ``(x, generator) -> x``, applied to each batch before the attack.
        :param kwargs: None is taken; a misspelt one is refused.
        :raises TypeError: Wrong types, or an unknown keyword.
        :raises ValueError: Bad data (see :mod:`art_lbgat.checks`), no optimizer, a foreign scheduler.
        """
        self._refuse(kwargs)
        avoid_single = self._normalizes_batches()
        stream = as_stream(x, y, batch_size, self._view, augmentation, avoid_single)
        self._fit(stream, nb_epochs, validation_data, batch_size, scheduler)

    def fit_generator(
        self,
        generator: DataGenerator,
        nb_epochs: int = 20,
        validation_data: tuple[Any, Any] | None = None,
        scheduler: Any = None,
        augmentation: Augmentation | None = None,
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
        stream = as_stream(generator, None, generator.batch_size, self._view, augmentation, self._normalizes_batches())
        self._fit(stream, nb_epochs, validation_data, generator.batch_size, scheduler)

    def _fit(self, stream: Stream, nb_epochs: int, validation_data: Any, batch_size: int, scheduler: Any) -> None:
        check_count(nb_epochs, "nb_epochs")
        for view in (self._view, *self._guides):
            view.refresh()
        validation = None if validation_data is None else Validation(validation_data, self._view, batch_size)
        trained = [self._view, *(self._guides if self._train_guides else [])]
        optimizers = checks.check_optimizers(trained)
        schedulers = checks.check_schedulers(scheduler, optimizers)
        for view in trained:
            checks.log_foreign_loss(view)
        adversary = self._prepare_adversary()
        judge = None if adversary is None else validation_adversary(adversary, self._view)
        best = Best([view.module for view in trained])
        self.seed = draw_seed() if self.options.seed is None else self.options.seed
        self._fits += 1
        with self._polite() as modes, Progress(self, stream.steps, nb_epochs) as progress:
            loop = Loop(
                self._view,
                self._guides,
                self._joint,
                self._natural,
                self._terms,
                self.options,
                adversary,
                optimizers,
                modes,
            )
            for epoch in range(1, nb_epochs + 1):
                row = loop.epoch(stream, Key(self.seed, self._fits, epoch), progress)
                error = row["loss"] if validation is None else None
                if validation and (epoch % self.options.validate_every == 0 or epoch == nb_epochs):
                    accuracies = validation.accuracies(modes[0], judge, self.seed)
                    row.update(accuracies)
                    score = tuple(reversed(accuracies.values()))
                    error = 1 - score[0]
                    if self.options.keep == "best":
                        best.offer(score, epoch)
                self._history.rows.append(row)
                logger.info("%s epoch %d/%d: %s", self.title, epoch, nb_epochs, row)
                step_schedulers(schedulers, error)
            self._keep(best, nb_epochs)

    def _keep(self, best: Best, nb_epochs: int) -> None:
        """Put back the best epoch where that is asked for, and mark the epoch whose weights are kept."""
        if best.epoch is not None:
            best.restore()
        for row in self._history.rows[-nb_epochs:]:
            row["kept"] = row["epoch"] == (best.epoch or nb_epochs)

    def _prepare_adversary(self) -> Adversary | None:
        if self._attack is None:
            return None
        adversary = Adversary(checks.check_attack(self._attack, self._view), self._view)
        adversary.log_way()
        if adversary.ascent is None and self.options.eps_warmup_epochs:
            raise ValueError(
                f"eps_warmup_epochs: expected 0 for an attack that runs through attack.generate ({adversary.reason}), "
                f"got {self.options.eps_warmup_epochs}."
            )
        return adversary

    @contextmanager
    def _polite(self) -> Iterator[list[Modes]]:
        """Everything global as found afterwards; no ambient autocast, no_grad or inference mode inside."""
        with ExitStack() as stack:
            stack.enter_context(preserved_randomness())
            # The wrapper too: ART sets its training flag beside the module's.
            views = [self._view, *self._guides]
            modes = stack.enter_context(preserved_modes([view.module for view in views]))
            stack.enter_context(preserved_modes([view.classifier._model for view in views]))
            stack.enter_context(plain_autograd(self._view.device))
            stack.enter_context(_untouched(self._attack))
            stack.callback(clear_gradients, self._joint.trained())
            yield modes

    def _normalizes_batches(self) -> bool:
        trained = [self._view, *(self._guides if self._train_guides else [])]
        return any(Modes(view.module).normalizes_batches() for view in trained)

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
