"""Every figure of the page, drawn by matplotlib: SVG whose texts are texts and whose colours are those of the page."""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib import style as mpl_style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from art_lbgat.diagnostics.plots import LINE_STYLES, MARKERS, MODEL_COLOURS, class_colours, class_title, plot_slice

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

PERCENT = (0.0, 100.0)
LARGEST = 96  # pixels of a side of a picture; larger ones are averaged down, or photographs would make megabytes
LIMIT = 200  # points of a line that are drawn and tabulated; more would be drawn on the same pixels
UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_WIDTH, _HEIGHT, _RIGHT, _TOP, _BOTTOM = 440, 300, 16, 30, 48
_SLICE_WIDTH, _SLICE_LEFT, _SLICE_RIGHT, _SLICE_TOP, _SLICE_BOTTOM = 300, 46, 12, 12, 42
_MARKS_PER_LINE = 8
# What is drawn in these colours takes those of the page, which has others in the dark.
_INK, _RULE, _PAGE, _DOT = "#010101", "#020202", "#030303", "#040404"
_OF_THE_PAGE = {_INK: "currentColor", _RULE: "var(--rule)", _PAGE: "var(--page)", _DOT: "var(--dot)"}
_OF_THE_PAGE |= {colour.lower(): f"var(--c{i})" for i, colour in enumerate(MODEL_COLOURS)}
_DRAWN: Sequence[str | dict[str, Any]] = [
    "default",
    {
        "svg.fonttype": "none", "svg.hashsalt": "art-lbgat", "text.parse_math": False, "font.size": 13.5,
        "figure.facecolor": "none", "axes.facecolor": "none", "axes.edgecolor": _INK, "text.color": _INK,
        "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "grid.color": _RULE, "grid.linewidth": 1.0,
        "axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 8, "axes.labelpad": 3,
        "xtick.major.pad": 7, "ytick.major.size": 4,
    },
]  # fmt: skip


class Series(NamedTuple):
    """Points with a name; NaN is a gap, an empty ``low`` or ``x_low`` no interval."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    x_low: Sequence[float] = ()
    x_high: Sequence[float] = ()
    strong: bool = False
    style: int = 0  # a model has the same in every chart


class Entry(NamedTuple):
    """An entry of a legend."""

    swatch: Markup
    name: str
    strong: bool = False
    width: int = 30  # of the swatch


class Drawing(NamedTuple):
    """The elements of an SVG of so many pixels, and its legend."""

    width: float
    height: float
    svg: Markup
    legend: tuple[Entry, ...]


@mpl_style.context(_DRAWN)
def lines(
    key: str, series: Sequence[Series], *, x_label: str, y_label: str,
    y_bounds: tuple[float, float] = (-math.inf, math.inf), whole_x: bool = False,
) -> Drawing:  # fmt: skip
    """Lines with markers over ``x``, and bands where there are intervals; ``key`` begins every id in it."""
    y_ticks = _ticks((v for s in series for v in (*s.y, *s.low, *s.high)), y_bounds)
    x = sorted({v for s in series for v in s.x if math.isfinite(v)}) or [0.0]
    low, high = (x[0] - 1, x[0] + 1) if x[0] == x[-1] else (x[0], x[-1])
    x_ticks = [tick for tick in _ticks((low, high), whole=whole_x) if low <= tick <= high]
    figure, ax = _axes(x_ticks, (low, high), y_ticks, x_label, y_label)
    legend = []
    for i, s in enumerate(series):
        look = model_look(s.style)
        if len(s.low):
            ax.fill_between(s.x, s.low, s.high, color=look["color"], alpha=0.14, linewidth=0)
        every = max(1, math.ceil(len(s.x) / _MARKS_PER_LINE))
        first = i * every // len(series)  # so that the markers of lines that lie on each other do not
        ax.plot(s.x, s.y, markevery=(first, every), clip_on=False, zorder=3, **look)
        legend.append(Entry(_swatch(f"{key}-{i}", **look), s.name, s.strong))
    return Drawing(_WIDTH, _HEIGHT, _svg(figure, key), tuple(legend))


@mpl_style.context(_DRAWN)
def scatter(
    key: str, series: Sequence[Series], *, x_label: str, y_label: str, backdrop: Series | None = None,
    front: Series | None = None,
) -> Drawing:  # fmt: skip
    """Points in percent with error bars, over small circles (``backdrop``) and the border of what is dominated."""
    everything = [*series, *filter(None, [backdrop])]
    x_ticks = _ticks((v for s in everything for v in (*s.x, *s.x_low, *s.x_high)), PERCENT)
    y_ticks = _ticks((v for s in everything for v in (*s.y, *s.low, *s.high)), PERCENT)
    figure, ax = _axes(x_ticks, (x_ticks[0], x_ticks[-1]), y_ticks, x_label, y_label)
    legend = []
    if front is not None:
        look: dict[str, Any] = {"color": _INK, "linestyle": (0, (4, 3)), "linewidth": 1.3}
        corners = [x_ticks[0], *front.x, front.x[-1]], [front.y[0], *front.y, y_ticks[0]]
        ax.step(*corners, where="pre", clip_on=False, **look)
        legend.append(Entry(_swatch(f"{key}-front", **look), front.name))
    if backdrop is not None:
        look = {"color": _DOT, "linestyle": "none", "marker": "o", "markerfacecolor": "none", "markersize": 5.2}
        ax.plot(backdrop.x, backdrop.y, clip_on=False, **look)
        legend.append(Entry(_swatch(f"{key}-board", **look), backdrop.name))
    for i, s in enumerate(sorted(series, key=lambda each: each.strong)):  # what is emphasised lies on top
        look = model_look(s.style)
        for ends in (([*s.x, *s.x], [*s.low, *s.high]), ([*s.x_low, *s.x_high], [*s.y, *s.y])):
            if len(ends[0]) == len(ends[1]):
                ax.plot(*ends, color=look["color"], linewidth=1.4, solid_capstyle="butt", clip_on=False, zorder=3)
        look |= {"linestyle": "none"}
        ax.plot(s.x, s.y, clip_on=False, zorder=4, **look | {"markersize": 12 if s.strong else 8})
        legend.append(Entry(_swatch(f"{key}-{i}", **look), s.name, s.strong))
    return Drawing(_WIDTH, _HEIGHT, _svg(figure, key), tuple(legend))


@mpl_style.context(_DRAWN)
def slices(key: str, frame: pandas.DataFrame, class_names: Sequence[str]) -> tuple[list[Drawing], tuple[Entry, ...]]:
    """:func:`~art_lbgat.diagnostics.plot_slice` of each model, all in the same colours, and the legend of all."""
    mpl.rcParams["font.size"] = 12
    frame = frame if "inside" in frame else frame.assign(inside=True)
    names = [" ".join(UNWRITABLE.sub("\ufffd", str(name)).split()) for name in class_names]
    made = []
    for i, (name, part) in enumerate(frame.groupby("model", sort=False)):
        u, v = np.unique(part["u"]), np.unique(part["v"])
        if len(u) * len(v) != len(part) or min(len(u), len(v)) < 2:
            raise ValueError(f"slices: expected a grid of points for {name!r}, got {len(part)} points.")
        width = _SLICE_WIDTH - _SLICE_LEFT - _SLICE_RIGHT
        tall = width * len(v) / len(u)
        height = tall + _SLICE_TOP + _SLICE_BOTTOM
        figure = Figure((_SLICE_WIDTH / 72, height / 72))
        ax = figure.add_axes((_SLICE_LEFT / _SLICE_WIDTH, _SLICE_BOTTOM / height, width / _SLICE_WIDTH, tall / height))
        plot_slice(frame, ax, model=str(name), legend=False, class_names=names).set_title("")
        made.append(Drawing(_SLICE_WIDTH, round(height, 1), _svg(figure, f"{key}-{i}"), ()))
    square = {"linestyle": "none", "marker": "s", "markersize": 12}
    legend = [
        Entry(_swatch(f"{key}-class-{k}", 14, color=colour, **square), f"class {class_title(k, class_names)}", width=14)
        for k, colour in class_colours(frame["predicted"]).items()
    ]
    look = {"color": "white", "markeredgecolor": "black", "linestyle": "none"}
    for i, name in enumerate(frame.attrs.get("anchors", {})):
        swatch = _swatch(f"{key}-image-{i}", 14, marker=MARKERS[i % len(MARKERS)], **look)
        legend.append(Entry(swatch, str(name), width=14))
    return made, tuple(legend)


def model_look(style: int) -> dict[str, Any]:
    """Colour, line and marker of a model; they repeat after 210."""
    return {"color": MODEL_COLOURS[style % len(MODEL_COLOURS)], "linestyle": LINE_STYLES[style % len(LINE_STYLES)],
            "marker": MARKERS[style % len(MARKERS)], "markeredgecolor": _PAGE, "markeredgewidth": 0.8,
            "linewidth": 2.0}  # fmt: skip


def thin(n: int) -> list[int]:
    """At most ``LIMIT`` of ``n`` indices, evenly spread, the first and the last among them."""
    return list(range(n)) if n <= LIMIT else [round(k * (n - 1) / (LIMIT - 1)) for k in range(LIMIT)]


def png_uri(image: NDArray[Any]) -> str:
    """A picture ``(C, H, W)`` in [0, 1] as a data URI, averaged down to ``LARGEST`` pixels if it is larger."""
    levels = np.clip(np.round(np.asarray(image, dtype=np.float64) * 255), 0, 255).astype(np.uint8)
    made = Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    if max(made.size) > LARGEST:
        made.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    buffer = io.BytesIO()
    made.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def amplified_difference(x: NDArray[Any], x_adv: NDArray[Any], scale: float) -> tuple[NDArray[np.float64], float]:
    """``1/2 + k (x_adv - x) / scale`` and ``k = scale / (2 max |x_adv - x|)`` (1 where nothing changed)."""
    delta = (np.asarray(x_adv, dtype=np.float64) - np.asarray(x, dtype=np.float64)) / scale
    largest = float(np.abs(delta).max())
    factor = 0.5 / largest if largest else 1.0
    return 0.5 + factor * delta, factor


def _axes(
    x_ticks: list[float], x_limits: tuple[float, float], y_ticks: list[float], x_label: str, y_label: str
) -> tuple[Figure, Axes]:
    x_texts, y_texts = ([f"{tick:.4g}".replace("-", "−") for tick in ticks] for ticks in (x_ticks, y_ticks))
    left = max(46.0, 16 + 8.6 * max(map(len, y_texts)))
    figure = Figure((_WIDTH / 72, _HEIGHT / 72))
    ax = figure.add_axes((left / _WIDTH, _BOTTOM / _HEIGHT, (_WIDTH - _RIGHT - left) / _WIDTH,
                          (_HEIGHT - _BOTTOM - _TOP) / _HEIGHT))  # fmt: skip
    ax.set_xticks(x_ticks, x_texts)
    ax.set_yticks(y_ticks, y_texts)
    ax.set(xlim=x_limits, ylim=(y_ticks[0], y_ticks[-1]))
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", color=_RULE)
    ax.set_xlabel(x_label, loc="right")
    figure.text(4 / _WIDTH, 1 - 15 / _HEIGHT, y_label)
    return figure, ax


def _ticks(
    values: Iterable[float], bounds: tuple[float, float] = (-math.inf, math.inf), whole: bool = False
) -> list[float]:
    """Round numbers from below the smallest value to above the largest, within the bounds if there is one value."""
    finite = [float(value) for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if low == high:
        pad = max(abs(low) * 0.1, 0.5)
        low, high = max(low - pad, bounds[0]), min(high + pad, bounds[1])
    ticks = MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(tick) for tick in ticks]


def _swatch(key: str, width: int = 30, **look: Any) -> Markup:
    """What stands in a legend before a name, 14 pixels high."""
    figure = Figure((width / 72, 14 / 72))
    figure.add_artist(Line2D([0.04, 0.5, 0.96], [0.5] * 3, markevery=[1], **look))
    return _svg(figure, key)


def _svg(figure: Figure, key: str) -> Markup:
    """What is in the SVG of a figure, without styles, which the policy of the page forbids, and with ids of its own."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that matplotlib's font lacks; the browser has others
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    made = ElementTree.Element("svg")
    for child in ElementTree.fromstring(buffer.getvalue()):  # noqa: S314 - matplotlib wrote it
        copy_element(child, made, key)
    # The one place where markup goes into the page as it is; ElementTree has escaped its texts and attributes.
    return Markup("".join(ElementTree.tostring(child, encoding="unicode") for child in made))  # noqa: S704


def copy_element(element: ElementTree.Element, parent: ElementTree.Element, key: str) -> None:
    """What matplotlib drew, as a child of ``parent`` that fits into the page; the ids in it begin with ``key``."""
    tag = element.tag.rpartition("}")[2]
    if tag in ("metadata", "style", "clipPath"):  # nothing is drawn outside its axes
        return
    attributes = dict(_attributes(element, tag, key))
    target = parent if tag == "g" and not attributes else ElementTree.SubElement(parent, tag, attributes)
    if tag == "text":
        target.text = element.text
    for child in element:
        copy_element(child, target, key)
    if tag == "defs" and not len(target):
        parent.remove(target)


def _attributes(element: ElementTree.Element, tag: str, key: str) -> Iterator[tuple[str, str]]:
    for qualified, value in element.items():
        name = qualified.rpartition("}")[2]
        if name == "style":
            found = dict(re.findall(r"([\w-]+):\s*([^;]+)", value))
            short = re.match(r"(?:(\d+) )?([\d.]+px)", found.pop("font", ""))
            if short:  # older versions of matplotlib: "700 12px 'DejaVu Sans'"
                yield from (("font-weight", short[1] or "400"), ("font-size", short[2]))
            yield from ((k, _OF_THE_PAGE.get(v.strip(), v.strip())) for k, v in found.items() if k != "font-family")
        elif name == "href" and value.startswith("#"):
            yield name, f"#{key}-{value[1:]}"
        elif name == "id" and tag == "path":  # of a marker; groups have ids that nobody refers to
            yield name, f"{key}-{value}"
        elif name in ("d", "x", "y", "transform") and not value.startswith("rotate(-0 "):
            numbers = " ".join(value.split())  # without line breaks
            yield name, re.sub(r"-?\d+\.\d+", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), numbers)
        elif name not in ("id", "clip-path", "transform"):
            yield name, value
