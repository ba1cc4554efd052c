"""Arrays as small PNG pictures inside the page."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from art_lbgat.report.content import Pictures, class_title
from art_lbgat.report.tables import SPACE, Column, Table, make_table, significant

LARGEST = 96  # pixels of a side; larger images are averaged down, or a page of photographs would be megabytes


class Picture(NamedTuple):
    """One image.

    :param uri: ``data:image/png;base64,...``.
    :param alt: What it shows.
    :param label: What is written under it.
    :param wrong: Whether it says that a prediction is wrong.
    """

    uri: str
    alt: str
    label: str
    wrong: bool = False


class Card(NamedTuple):
    """An image, its adversarial example and their difference.

    :param title: Which image of which class.
    :param pictures: The three.
    """

    title: str
    pictures: tuple[Picture, ...]


def png_uri(image: NDArray[Any], largest: int | None = None) -> str:
    """A picture as a data URI.

    :param image: ``(C, H, W)`` with 1 or 3 channels, in [0, 1].
    :param largest: Pixels of a side; a larger picture is averaged down to it. None keeps any size.
    """
    levels = np.clip(np.round(np.asarray(image, dtype=np.float64) * 255), 0, 255).astype(np.uint8)
    made = Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    if largest is not None and max(made.size) > largest:
        made.thumbnail((largest, largest), Image.Resampling.BOX)
    buffer = io.BytesIO()
    made.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def amplified_difference(x: NDArray[Any], x_adv: NDArray[Any], scale: float) -> tuple[NDArray[np.float64], float]:
    """``1/2 + k (x_adv - x) / scale`` with ``k = scale / (2 max |x_adv - x|)``: grey is no change.

    :param x: Natural images.
    :param x_adv: Adversarial ones.
    :param scale: Range of the images.
    :return: The differences in [0, 1], and ``k`` (1 where nothing changed).
    """
    delta = (np.asarray(x_adv, dtype=np.float64) - np.asarray(x, dtype=np.float64)) / scale
    largest = float(np.abs(delta).max())
    factor = 0.5 / largest if largest else 1.0
    return 0.5 + factor * delta, factor


def make_cards(pictures: Pictures) -> tuple[list[Card], float, Table]:
    """The strip of pictures.

    :param pictures: What to show.
    :return: A card per image, the factor by which differences are amplified (the same for all), and the table.
    """
    import pandas

    low, high = pictures.clip_values
    x, x_adv = (np.asarray(each, dtype=np.float64) for each in (pictures.x, pictures.x_adv))
    differences, factor = amplified_difference(x, x_adv, high - low)
    cards, rows = [], []
    for i, label in enumerate(np.asarray(pictures.y)):
        true, natural, adversarial = (
            class_title(int(k), pictures.class_names) for k in (label, pictures.predicted[i], pictures.predicted_adv[i])
        )
        wrong = bool(pictures.predicted[i] != label), bool(pictures.predicted_adv[i] != label)
        said = [f"{name}{' (wrong)' if bad else ''}" for name, bad in zip((natural, adversarial), wrong, strict=True)]
        images = (
            Picture(png_uri((x[i] - low) / (high - low), LARGEST), f"natural image {i + 1}, class {true}",
                    f"natural: {said[0]}", wrong[0]),
            Picture(png_uri((x_adv[i] - low) / (high - low), LARGEST), f"adversarial image {i + 1}, class {true}",
                    f"adversarial: {said[1]}", wrong[1]),
            Picture(png_uri(differences[i], LARGEST), f"difference of the two images {i + 1}, amplified",
                    f"change ×{SPACE}{factor:.3g}"),
        )  # fmt: skip
        cards.append(Card(f"Image {i + 1}, class {true}", images))
        change = float(np.abs(x_adv[i] - x[i]).max())
        length = float(np.linalg.norm(x_adv[i] - x[i]))
        rows.append(
            {"i": f"{i + 1}", "y": true, "natural": said[0], "adversarial": said[1], "linf": change, "l2": length}
        )
    columns = [
        Column("i", "image"), Column("y", "class"), Column("natural", "natural prediction"),
        Column("adversarial", "adversarial prediction"), Column("linf", "largest change (input units)", significant),
        Column("l2", "L2 change (input units)", significant),
    ]  # fmt: skip
    return cards, factor, make_table("Predictions and sizes of the changes", pandas.DataFrame(rows), columns)
