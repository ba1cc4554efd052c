"""The checkpoints of one run: its directory, when they are written and by whom, and from which one it goes on."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from art_lbgat.engine.cadence import Cadence, parse_every
from art_lbgat.engine.checkpoint import (
    Checkpoint,
    checkpoints,
    locked,
    prune,
    read_checkpoint,
    read_newest,
    set_aside_newer,
    write_checkpoint,
)
from art_lbgat.engine.options import RunOptions
from art_lbgat.fingerprint import MAY_CHANGE, differences, surroundings
from art_lbgat.processes import Processes

logger = logging.getLogger(__name__)

INTERRUPTED = "interrupted.json"
_PARTS = {"models", "optimizers", "selection", "randomness", "run"}
_ADVICE = f"What may change: {', '.join(MAY_CHANGE)}. Take another checkpoint_dir for another run."


class Checkpointer:
    """Writes what a run is made of while it goes on; the main process alone, in a thread of its own.

    :param root: The directory of this run.
    :param options: ``checkpoint_every``, ``keep_checkpoints`` and ``resume`` are followed.
    :param settings: What the run was started with, as JSON; a checkpoint of other settings is refused.
    :param processes: The processes of the run.
    :param fit: The number of the fit.
    """

    def __init__(
        self, root: Path, options: RunOptions, settings: Mapping[str, Any], processes: Processes, fit: int = 1
    ) -> None:
        self.root, self._fit = root, fit
        self._options, self._settings, self._processes = options, dict(settings), processes
        self._surroundings = surroundings(processes.world)
        self._cadence = Cadence(parse_every(options.checkpoint_every))
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[float] | None = None

    @contextmanager
    def opened(self) -> Iterator[Checkpointer]:
        """The directory for this run alone; what is still being written is finished at the end.

        :raises PermissionError: If it cannot be written to.
        :raises BlockingIOError: If another run has it.
        """
        with locked(self.root) if self._processes.is_main else nullcontext():
            try:
                yield self
            finally:
                self._pool.shutdown(wait=True)

    def find(self) -> Checkpoint | None:
        """The checkpoint that the run goes on from, as ``resume`` asks, or None to start at the first step.

        :raises FileNotFoundError: ``resume="must"`` where there is none, or a path that is not there.
        :raises ValueError: ``resume="never"`` where there are some, a path with newer ones beside it, damaged, other
            settings.
        """
        there, resume = checkpoints(self.root), self._options.resume
        if resume == "never":
            if there:
                raise ValueError(
                    f"resume: 'never', but {self.root} holds checkpoints of a run, which would be lost; expected an "
                    "empty checkpoint_dir, or resume='auto' to go on."
                )
            return None
        found = None
        if resume not in ("auto", "must"):
            found = self._given(Path(resume), there)
        if found is None:
            found = read_newest(self.root)
            if found is None and resume == "must" and not list(self.root.parent.glob("fit-*/step-*")):
                raise FileNotFoundError(f"resume: 'must', but there is no checkpoint in {self.root.parent}.")
        if found is not None:
            self._check_settings(found)
        return found

    def _given(self, path: Path, there: list[Path]) -> Checkpoint | None:
        """The checkpoint of a path; None where it is of another fit, or this run has gone on from it already."""
        if not path.is_dir():
            raise FileNotFoundError(
                f"resume: expected 'auto', 'must', 'never' or the path of a checkpoint, got {path}."
            )
        found = read_checkpoint(path) if path.name.startswith("step-") else read_newest(path)
        if found is None:
            raise FileNotFoundError(f"resume: there is no checkpoint in {path}.")
        if found.parts.get("run", {}).get("fit") != self._fit:
            return None
        if found.path.resolve().parent != self.root.resolve():
            return None if there else found
        newer = [each.name for each in there if each.name > found.path.name]
        if newer:
            raise ValueError(
                f"resume: {found.path} is older than {newer[0]} in {self.root}, which the run would overwrite; "
                "expected another checkpoint_dir, or resume='auto' to go on from the newest."
            )
        return found

    def set_aside_newer(self, used: Checkpoint) -> None:
        """Move away the checkpoints of this run that are newer than the one it goes on from (in the main process).

        :param used: The checkpoint that the run goes on from.
        """
        if self._processes.is_main and used.path.parent.resolve() == self.root.resolve():
            set_aside_newer(self.root, used.path)

    def _check_settings(self, found: Checkpoint) -> None:
        if not found.parts.keys() >= _PARTS:
            missing = sorted(_PARTS - found.parts.keys())
            raise ValueError(f"resume: {found.path} is no checkpoint of a run: it lacks {', '.join(missing)}.")
        changed = differences(found.facts.get("settings"), json.loads(json.dumps(self._settings)))
        if changed:
            raise ValueError(f"resume: the settings are not those of {found.path}: {'; '.join(changed)}. {_ADVICE}")
        around = differences(found.facts.get("surroundings"), json.loads(json.dumps(self._surroundings)))
        if around:
            logger.warning("resume: the last bits may differ from a run never stopped: %s.", "; ".join(around))

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether the main process should write now: it is time, and the last one is on the disk.

        :param epoch_ended: Whether the step was the last one of its epoch.
        :raises OSError: If the last one could not be written.
        """
        if not self._cadence.due(epoch_ended=epoch_ended):
            return False
        return self._collected(wait=False)

    def write(self, step: int, parts: Mapping[str, Any], *, wait: bool) -> None:
        """Write a checkpoint.

        :param step: Steps of the run so far.
        :param parts: Trees by name; tensors are copied before this returns.
        :param wait: Whether to return only when it is on the disk, rather than when it is copied.
        :raises OSError: If this or the last one could not be written; the ones before are intact.
        """
        start = time.perf_counter()
        self._collected(wait=True)
        facts = {"settings": self._settings, "surroundings": self._surroundings, "written": time.time()}
        self._cadence.restart()
        copied: dict[str, Any] = _copied(parts)
        still = time.perf_counter() - start

        def work() -> float:
            """Write and prune; what it all took."""
            begun = time.perf_counter()
            write_checkpoint(self.root, step, copied, facts)
            prune(self.root, self._options.keep_checkpoints)
            return still + time.perf_counter() - begun

        self._writing = self._pool.submit(work)
        if wait:
            self._collected(wait=True)

    def finish(self) -> None:
        """Wait until what is being written is on the disk.

        :raises OSError: If it could not be written.
        """
        self._collected(wait=True)

    def _collected(self, *, wait: bool) -> bool:
        """Whether nothing is being written any more; an error of the writing is raised here."""
        if self._writing is None:
            return True
        if not wait and not self._writing.done():
            return False
        writing, self._writing = self._writing, None
        try:
            self._cadence.cost(writing.result())
        except OSError as error:
            what = (
                "the ones before it are intact, and the run goes on from the newest when it is started again"
                if checkpoints(self.root)
                else "there are none there any more"
            )
            raise OSError(
                f"checkpoint_dir: a checkpoint could not be written to {self.root} ({error.strerror or error}); {what}."
            ) from error
        return True

    def keep_guides(self, states: Mapping[str, Any]) -> None:
        """Write the weights of frozen guides, once for the whole run, below the directory of its checkpoints.

        :param states: Their state dicts by name.
        """
        folder = self.root / "guides"
        folder.mkdir(exist_ok=True)
        write_checkpoint(folder, 0, states, {})

    def note_interruption(self, what: Mapping[str, Any]) -> None:
        """A file that says how the run ended, since a launcher may hide the exit code.

        :param what: What is written, as JSON can hold it.
        """
        if self._processes.is_main:
            (self.root / INTERRUPTED).write_text(json.dumps(dict(what), indent=2) + "\n", encoding="utf-8")

    def forget_interruption(self) -> None:
        """The run goes on."""
        if self._processes.is_main:
            (self.root / INTERRUPTED).unlink(missing_ok=True)


def together(processes: Processes, action: Callable[[], None]) -> None:
    """Something that the main process alone does; if it fails, all fail, instead of waiting for each other.

    :param processes: The processes of the run.
    :param action: What is done.
    :raises Exception: What the action raised, in the main process.
    :raises RuntimeError: In the others.
    """
    error: Exception | None = None
    if processes.is_main:
        try:
            action()
        except Exception as raised:
            error = raised
    failed = processes.largest([error is not None])[0]
    if error is not None:
        raise error
    if failed:
        raise RuntimeError("the main process failed; its own error says why.")


def _copied(tree: Any) -> Any:
    """The same tree, with tensors on the CPU that nothing else writes into."""
    if isinstance(tree, Tensor):
        found = tree.detach()
        return found.cpu() if found.device.type != "cpu" else found.clone(memory_format=torch.preserve_format)
    if isinstance(tree, Mapping):
        copied = {key: _copied(value) for key, value in tree.items()}
        return Counter(copied) if type(tree) is Counter else copied
    if isinstance(tree, tuple) and type(tree) is tuple:
        return tuple(_copied(value) for value in tree)
    return [_copied(value) for value in tree] if isinstance(tree, list) else tree
