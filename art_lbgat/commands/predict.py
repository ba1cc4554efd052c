"""``art-lbgat predict``: what a trained classifier says of image files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from art_lbgat.commands import shared


def predict(
    target: Annotated[str, typer.Argument(help="The directory of a run, or a checkpoint or weights in it.")],
    image: Annotated[list[Path], typer.Argument(help="Image files; brought to the size that was trained on.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    csv: Annotated[Path | None, typer.Option(help="Write the table to this new file.")] = None,
) -> None:
    """Classify image files: the class that is predicted for each, and its probability (softmax) in percent."""
    with shared.one_message():
        import numpy as np
        import pandas

        from art_lbgat.commands.targets import find_target
        from art_lbgat.data import read_images

        shared.new_file(csv, "csv")
        found = find_target(target, device_type=shared.choose_device(device))
        shape = tuple(found.classifier.input_shape)
        if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
            raise ValueError(f"target: expected a classifier of square RGB images, got input_shape {shape}.")
        x = read_images(image, shape[1], "image").astype(np.float32) / np.float32(255)
        logits = found.classifier.predict(x).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best, names = shares.argmax(axis=1), found.class_names
        table = pandas.DataFrame(
            {
                "image": [str(path) for path in image],
                "class": [names[k] if names else str(k) for k in best.tolist()],
                "probability %": (100 * shares.max(axis=1)).round(1),
            }
        )
        if csv is not None:
            table.to_csv(csv, index=False)
        shared.print_frame(found.name, table)
