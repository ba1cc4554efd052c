"""A part of the page, as the template takes it."""

from __future__ import annotations

from typing import NamedTuple

from art_lbgat.report.charts import Chart
from art_lbgat.report.images import Card
from art_lbgat.report.slice_figures import SliceFigure, Swatch
from art_lbgat.report.tables import Table


class Section(NamedTuple):
    """A part of the page with a heading; what is empty is not written.

    :param slug: Its id.
    :param title: Its heading.
    :param notes: Paragraphs.
    :param warnings: Paragraphs that are not to be overlooked.
    :param tables: Tables that are always shown.
    :param folded: Long tables, shown when asked for.
    :param charts: Charts, each with its own table.
    :param slices: Pictures of decision regions.
    :param swatches: The legend of their classes.
    :param cards: Images beside their adversarial examples.
    :param cards_table: Their table.
    :param commands: Lines for a terminal.
    """

    slug: str
    title: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    slices: tuple[SliceFigure, ...] = ()
    swatches: tuple[Swatch, ...] = ()
    cards: tuple[Card, ...] = ()
    cards_table: Table | None = None
    commands: tuple[str, ...] = ()
