"""One public function in the table of bad inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qa.faults.wrong_values import Strategy


@dataclass(frozen=True)
class Call:
    """One function.

    :param name: Its name; a method's is ``Class.method``.
    :param make: Gives the function, arguments by name that are right, and what else must stay as it is; anew each time.
    :param wrong: Strategies of wrong values by argument.
    :param says: How an error calls an argument, where not by its name, as a regular expression.
    :param raises: What else it may raise beside :class:`ValueError`, :class:`TypeError` and :class:`OSError`.
    :param missing: Whether the call that is right ends in :class:`FileNotFoundError`, since its files are not here.
    """

    name: str
    make: Callable[[], tuple[Any, ...]]
    wrong: Mapping[str, Sequence[Strategy]]
    says: Mapping[str, str] = field(default_factory=dict)
    missing: bool = False
    raises: tuple[type[Exception], ...] = ()
