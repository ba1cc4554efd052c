"""Tables as texts that a template writes down: every number formatted in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas

Format = Callable[[Any], str]
MINUS, MISSING, SPACE = "−", "–", "\u00a0"  # a space where no line breaks
_LONG = 30  # characters of a text that needs a wide column


class Column(NamedTuple):
    """A column of a table on the page.

    :param key: Its name in the DataFrame.
    :param title: Its heading, unit included.
    :param write: Cell to text; None is for texts, which stand at the left.
    """

    key: str
    title: str
    write: Format | None = None


class Table(NamedTuple):
    """A table on the page; the first column names the row.

    :param caption: What it shows.
    :param heads: Headings.
    :param kinds: ``"number"`` for columns that stand at the right, ``"wide"`` for long texts, else an empty text.
    :param rows: Texts.
    :param strong: Which rows are emphasised.
    """

    caption: str
    heads: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[bool, ...]


def make_table(
    caption: str, frame: pandas.DataFrame, columns: Sequence[Column], strong: Sequence[bool] | None = None
) -> Table:
    """The columns of a DataFrame that there are, in the order asked for.

    :param caption: What it shows.
    :param frame: Any table.
    :param columns: What to show; one that the frame does not have is left out.
    :param strong: Which rows are emphasised; None is none.
    """
    shown = [column for column in columns if column.key in frame]
    cells = [[(column.write or text)(value) for value in frame[column.key]] for column in shown]
    return Table(
        caption,
        tuple(column.title for column in shown),
        tuple(_kind(column, each) for column, each in zip(shown, cells, strict=True)),
        tuple(zip(*cells, strict=True)),
        tuple(map(bool, strong)) if strong is not None else (False,) * len(frame),
    )


def text(value: Any) -> str:
    """Any value as a text; nothing where it is missing.

    :param value: Anything.
    """
    return "" if _missing(value) else str(value)


def percent(value: Any, decimals: int = 1) -> str:
    """A share in [0, 1] as a number in percent.

    :param value: The share.
    :param decimals: Digits after the point.
    """
    return number(MISSING if _missing(value) else 100 * float(value), decimals)


def number(value: Any, decimals: int = 1) -> str:
    """A number with so many decimals.

    :param value: The number.
    :param decimals: Digits after the point.
    """
    return MISSING if _missing(value) else f"{round(float(value), decimals) + 0.0:.{decimals}f}".replace("-", MINUS)


def published(value: Any) -> str:
    """A percentage as leaderboards write it, with two decimals.

    :param value: The percentage.
    """
    return number(value, 2)


def significant(value: Any) -> str:
    """A number with four significant digits.

    :param value: The number.
    """
    return MISSING if _missing(value) else f"{float(value):.4g}".replace("-", MINUS)


def whole(value: Any) -> str:
    """A count.

    :param value: The count.
    """
    return MISSING if _missing(value) else f"{int(value):,}"


def interval(low: Any, high: Any) -> str:
    """``[95.1, 96.3]`` of shares in [0, 1], in percent; nothing where there is none.

    :param low: The lower end.
    :param high: The upper end.
    """
    return "" if _missing(low) or _missing(high) else f"[{percent(low)},{SPACE}{percent(high)}]"


def _kind(column: Column, cells: Sequence[str]) -> str:
    if column.write is not None:
        return "number"
    return "wide" if max(map(len, cells), default=0) > _LONG else ""


def _missing(value: Any) -> bool:
    if value is None or value is MISSING or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and math.isnan(value)
