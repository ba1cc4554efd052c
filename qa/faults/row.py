"""One row of the table in docs/reliability.md: what was tried, how often, and what came of it."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A fault, injected again and again.

    :param test: What was done, in words.
    :param asked: What must come of it.
    :param tried: How often it was done.
    :param good: How often it ended as asked.
    :param notes: What else was measured, with units; failures by name.
    """

    test: str
    asked: str
    tried: int
    good: int
    notes: str = ""
