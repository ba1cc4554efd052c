"""How to run: the options that every trainer shares, declared once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from typing_extensions import TypedDict

from art_lbgat.checks import check_choice, check_count, check_number


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that change nothing about the method.

    :param eps_warmup_epochs: ``eps`` and ``eps_step`` of the training attack rise linearly: in epoch ``e`` (from 1)
        they are ``min(1, e / eps_warmup_epochs)`` of their full size. 0 turns it off.
    :param max_grad_norm: Clip the joint L2 norm of all trained parameters' gradients to this; None does not clip.
    :param keep: With validation data, ``"best"`` keeps the weights of the epoch with the highest robust (then natural)
        validation accuracy, ``"last"`` those of the last epoch.
    :param validate_every: Validate after every so many epochs, and always after the last.
    :param seed: Seed of the run; None draws one from torch's global generator.
    :param verbose: Show a progress bar.
    :raises TypeError: A value of the wrong type.
    :raises ValueError: A value outside its range.
    """

    eps_warmup_epochs: int = 0
    max_grad_norm: float | None = None
    keep: Literal["best", "last"] = "best"
    validate_every: int = 1
    seed: int | None = None
    verbose: bool = True

    def __post_init__(self) -> None:
        check_count(self.eps_warmup_epochs, "eps_warmup_epochs", minimum=0)
        if self.max_grad_norm is not None:
            check_number(self.max_grad_norm, "max_grad_norm", exclusive=True)
        check_choice(self.keep, "keep", ("best", "last"))
        check_count(self.validate_every, "validate_every")
        if self.seed is not None:
            check_count(self.seed, "seed", minimum=0)
        if not isinstance(self.verbose, bool):
            raise TypeError(f"verbose: expected a bool, got {self.verbose!r}.")

    def eps_factor(self, epoch: int) -> float:
        """The share of the full ``eps`` in ``epoch`` (from 1)."""
        return 1.0 if self.eps_warmup_epochs == 0 else min(1.0, epoch / self.eps_warmup_epochs)


class RunFields(TypedDict, total=False):
    """The fields of :class:`RunOptions` as keywords (a test keeps the two equal)."""

    eps_warmup_epochs: int
    max_grad_norm: float | None
    keep: Literal["best", "last"]
    validate_every: int
    seed: int | None
    verbose: bool


def run_options(options: RunOptions | None, given: RunFields) -> RunOptions:
    """The options of a trainer, from the object or from keywords.

    :param options: A :class:`RunOptions`, or None.
    :param given: Its fields as keywords.
    :return: The options.
    :raises TypeError: Both given, an object of another type, or a keyword that is no field (with the nearest).
    """
    values: dict[str, Any] = dict(given)
    names = [field.name for field in fields(RunOptions)]
    for name in values:
        if name not in names:
            check_keyword(name, names)
    if options is None:
        return RunOptions(**values)
    if not isinstance(options, RunOptions):
        raise TypeError(f"options: expected a RunOptions, got {type(options).__name__}.")
    if values:
        raise TypeError(f"options: expected either options= or keywords, got both ({', '.join(values)}).")
    return options


def check_keyword(name: str, names: list[str]) -> None:
    """Refuse a keyword that nothing takes, naming the nearest one that exists.

    :raises TypeError: Always, unless ``name`` is one of ``names``.
    """
    try:
        check_choice(name, "keyword", names)
    except ValueError as error:
        raise TypeError(f"unexpected {error}") from None
