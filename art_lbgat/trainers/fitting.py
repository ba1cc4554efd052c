"""One call of ``fit``, put together: the data, the models and the options become a run."""

from __future__ import annotations

import logging
import zlib
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_lbgat.data import Stream
from art_lbgat.engine.average import Average
from art_lbgat.engine.checkpoint import Checkpoint
from art_lbgat.engine.checkpointer import Checkpointer, together
from art_lbgat.engine.execution import executions, gradient_scaler
from art_lbgat.engine.selection import Selection
from art_lbgat.engine.signals import Signals
from art_lbgat.engine.trackers import Trackers
from art_lbgat.fingerprint import module_weights
from art_lbgat.memory import named_out_of_memory
from art_lbgat.preserve import Key, draw_seed
from art_lbgat.trainers import checks
from art_lbgat.trainers.adversary import validation_adversary
from art_lbgat.trainers.described import described_fit
from art_lbgat.trainers.guide_cache import GuideCache
from art_lbgat.trainers.loop import Loop
from art_lbgat.trainers.progress import Progress
from art_lbgat.trainers.run import Run
from art_lbgat.trainers.state import load_run
from art_lbgat.trainers.validation import Validation
from art_lbgat.trainers.warm_starts import WarmStarts

if TYPE_CHECKING:
    from art_lbgat.trainers.base import BaseTrainer

logger = logging.getLogger(__name__)


def fit_stream(
    trainer: BaseTrainer, stream: Stream, nb_epochs: int, validation_data: Any, batch_size: int, scheduler: Any
) -> None:
    """Everything between the data and the trained classifiers: checks, checkpoint, loop, what is kept.

    :param trainer: The trainer.
    :param stream: The data.
    :param nb_epochs: Number of epochs.
    :param validation_data: As ``fit`` takes it.
    :param batch_size: Samples per batch.
    :param scheduler: As ``fit`` takes it.
    """
    device, processes = trainer._view.device, trainer._processes
    checks.check_processes(trainer.options, processes, trainer._cache_guide, device, batch_size)
    validation = None if validation_data is None else Validation(validation_data, trainer._view, batch_size)
    checks.check_selection(trainer.options, validation is not None)
    trained = trainer._trained()
    optimizers = checks.check_optimizers(trained)
    schedulers = checks.check_schedulers(scheduler, optimizers)
    for view in trained:
        checks.log_foreign_loss(view)
    if trainer._cache_guide:
        checks.check_rows(stream, "cache_guide")
    if trainer.options.awp_gamma is not None:
        checks.check_perturbable(trainer._view, optimizers)
    scaler, decay = gradient_scaler(trainer.options, device), trainer.options.ema_decay
    adversary = trainer._prepare_adversary()
    warm_starts = None
    if trainer.options.warm_start and adversary is not None:
        warm_starts = WarmStarts(len(checks.check_rows(stream, "warm_start")))
    number = trainer._fits + 1
    checkpointer = None
    if trainer.options.checkpoint_dir is not None:
        checks.check_schedulers_kept(schedulers)
        settings = described_fit(trainer, stream, validation, optimizers, [scheduler, *schedulers])
        root = Path(trainer.options.checkpoint_dir) / f"fit-{number:03d}"
        # What schedulers and rollbacks have made of the optimizers since this fit was begun is no change of settings.
        begun = trainer._begun.setdefault(number, settings)
        settings = {**settings, **{name: begun[name] for name in ("optimizers", "scheduler")}}
        checkpointer = Checkpointer(root, trainer.options, settings, processes, number)
    else:
        trainer._fits = number
    seed = draw_seed() if trainer.options.seed is None else trainer.options.seed
    trainer.seed = processes.of_main(seed)
    trainer._history.rows[:] = [row for row in trainer._history.rows if row["fit"] < number]
    modules = {view.name: view.module for view in trained}
    if processes.world > 1:
        weights = [module_weights(view.module) for view in (trainer._view, *trainer._guides)]
        processes.check_same(
            zlib.crc32(f"{weights}{stream.fingerprint()}".encode()),
            "classifier, guide or x: they differ between the processes; expected the same weights (built of one seed) "
            "and the same data in all of them.",
        )
    selection = Selection(trainer.options, modules, trainer._view.classifier.nb_classes)
    views = [trainer._view, *trainer._guides]
    with (
        checkpointer.opened() if checkpointer else nullcontext(),
        trainer._polite(synchronized=trainer.options.sync_batchnorm and processes.world > 1) as modes,
        executions([(view.name, view.module) for view in views], trainer.options, device) as runs,
        trainer._joint.run_by([run.train for run in runs]),
        named_out_of_memory(batch_size),
        Signals(enabled=checkpointer is not None) as signals,
        Progress(trainer, stream.steps, nb_epochs, shown=processes.is_main) as progress,
    ):
        if adversary is not None:
            adversary.forward = runs[0].attack
        loop = Loop(
            trainer._view,
            trainer._guides,
            trainer._joint,
            trainer._natural,
            trainer._terms,
            trainer.options,
            adversary,
            optimizers,
            modes,
            processes,
            average=None if decay is None else Average(trainer._view.module, decay),
            guide_cache=GuideCache() if trainer._cache_guide else None,
            scaler=scaler,
            warm_starts=warm_starts,
        )
        run = Run(
            trainer.title,
            trainer.options,
            loop,
            stream,
            Key(trainer.seed, number),
            nb_epochs,
            modules,
            schedulers,
            selection,
            trainer._history,
            validation,
            None if adversary is None else validation_adversary(adversary, trainer._view),
            checkpointer,
            signals,
            progress,
            Trackers(trainer.options.trackers if processes.is_main else ()),
        )
        if checkpointer is not None:
            _go_on(trainer, run, checkpointer)
        last_epoch = run.train()
        _keep(trainer, selection, loop.average, last_epoch)
    trainer._fits = number


def _go_on(trainer: BaseTrainer, run: Run, checkpointer: Checkpointer) -> None:
    """Put a run where its checkpoint left it, if there is one."""
    found: Checkpoint | None = None

    def look() -> None:
        """Find and check it, in the main process first, so that all fail where it does."""
        nonlocal found
        found = checkpointer.find()

    together(run.processes, look)
    if not run.processes.is_main:
        found = checkpointer.find()
    run.processes.check_same(
        -1 if found is None else found.step,
        "checkpoint_dir: the processes see different checkpoints; expected a directory that all of them share.",
    )
    if found is None:
        frozen = [] if trainer._train_guides else trainer._guides
        states = {f"guide-{i}": dict(guide.module.state_dict()) for i, guide in enumerate(frozen)}
        if states:  # once, since they never change
            together(run.processes, lambda: checkpointer.keep_guides(states))
        return
    load_run(run, found)
    checkpointer.set_aside_newer(found)
    trainer.seed = run.key.seed
    checkpointer.forget_interruption()
    logger.warning("%s goes on from %s, in epoch %d.", trainer.title, found.path, run.epoch)


def _keep(trainer: BaseTrainer, selection: Selection, average: Average | None, last_epoch: int) -> None:
    """Leave the weights that are asked for in the classifiers, and say in the history which they are and why."""
    trainer.kept_weights = {}
    if average:
        trainer.kept_weights["raw"] = selection.states()
        average.swap()
    if trainer.options.keep == "both":
        trainer.kept_weights["last"] = selection.states()
    kept, reason = selection.finish(last_epoch)
    if trainer.options.keep == "both":
        trainer.kept_weights["best"] = selection.states()
    for row in trainer._history.rows[-last_epoch:]:
        row["kept"] = row["epoch"] == kept
        row["kept_because"] = reason if row["kept"] else ""
