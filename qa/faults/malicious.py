"""Malicious pickles in place of every file that is read: none may run, each must be refused by name."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import gdown
import numpy as np
import pytest
import torch
from PIL import Image

from art_lbgat.classifier import TensorView
from art_lbgat.data import load_data, load_npz, read_npz_images
from art_lbgat.engine.checkpoint import read_checkpoint, read_newest, write_checkpoint
from art_lbgat.evaluation.autoattack import auto_attack
from art_lbgat.evaluation.record import Entry, Record
from art_lbgat.models import create_model
from art_lbgat.recipes import RECIPES, Recipe
from art_lbgat.robustbench import load_classifier
from art_lbgat.robustbench.images import corrupted_images, load_images
from art_lbgat.robustbench.result import BenchmarkResult
from art_lbgat.robustbench.zoo import find_entry
from art_lbgat.robustbench_import import AutoAttack
from art_lbgat.weights import load_weights
from qa.faults.malicious_files import FORMS, WAYS, YAML_TAGS, Evil, read_carelessly
from qa.faults.row import Row
from tests.conftest import conv_net, make_classifier, make_data
from tests.robustbench.test_submission import export
from tests.robustbench.test_submission import tiny as submitted
from tests.robustbench.zoo_nets import tiny

Write = Callable[[Path], None]


class Trap(NamedTuple):
    """A malicious file in its place.

    :param load: What reads it.
    :param named: What the error must name: the file, or the folder of a data set or checkpoint that is one.
    """

    load: Callable[[], Any]
    named: str


Place = Callable[[Path, Write, pytest.MonkeyPatch], Trap]


def _checkpoint(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    path = write_checkpoint(folder, 1, {"w": torch.ones(2)}, {})
    write(path)
    return Trap(lambda: read_newest(folder), path.name)


def _checkpoint_header(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    """In place of the JSON of a checkpoint, with the length that fits."""
    path = write_checkpoint(folder, 1, {"w": torch.ones(2)}, {})
    write(folder / "header")
    header = (folder / "header").read_bytes()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return Trap(lambda: read_checkpoint(path), path.name)


def _weights(load: Callable[[Path], Any]) -> Place:
    def place(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
        write(folder / "weights.pt")
        return Trap(lambda: load(folder / "weights.pt"), str(folder / "weights.pt"))

    return place


def _zoo(folder: Path, write: Write, patch: pytest.MonkeyPatch) -> Trap:
    entry, _ = tiny(patch)
    (path,) = entry.files(folder)
    path.parent.mkdir(parents=True)
    write(path)
    return Trap(lambda: load_classifier("Standard", model_dir=folder), str(path))


def _zoo_download(folder: Path, write: Write, patch: pytest.MonkeyPatch) -> Trap:
    entry, _ = tiny(patch)
    patch.setattr(gdown, "download", lambda *_, output, **__: write(Path(output)))
    (path,) = entry.files(folder)
    return Trap(lambda: load_classifier("Standard", model_dir=folder), str(path))


def _zoo_cache(folder: Path, write: Write, patch: pytest.MonkeyPatch) -> Trap:
    patch.setattr(torch.hub, "_hub_dir", str(folder / "hub"))
    path = find_entry("Standard_R50", "imagenet", "Linf").cached
    path.parent.mkdir(parents=True)
    write(path)
    return Trap(lambda: load_classifier("Standard_R50", "imagenet", "Linf", folder), str(path))


def _submission(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    classifier = submitted()
    made = export(classifier, folder)
    write(made.checkpoint)
    return Trap(lambda: load_weights(classifier.model, made.checkpoint), str(made.checkpoint))


def _result(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    made = export(submitted(), folder)
    write(made.result)
    return Trap(lambda: BenchmarkResult.load(made.result), str(made.result))


def _state_file(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    write(folder / "state")
    view, (x, y) = TensorView(make_classifier()), (torch.from_numpy(each) for each in make_data(4))
    return Trap(lambda: auto_attack(view, x, y, 0.1, state_path=folder / "state"), str(folder / "state"))


def _state_blob(name: str) -> Place:
    """In place of a file of a state directory."""

    def place(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
        path = folder / "state"
        with Record(path, {}) as record:
            record.add("natural", Entry(torch.arange(2), torch.zeros(2, 2), {}, 0.0))
        (path / name).unlink()
        write(path / name)

        def load() -> None:
            with Record(path, {}) as record:
                record.get("natural")

        return Trap(load, str(path))

    return place


def _published_state(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    write(folder / "state.json")
    net, (x, y) = conv_net(), (torch.from_numpy(each) for each in make_data(2))
    attack = AutoAttack(net, eps=0.1, device="cpu")
    run = attack.run_standard_evaluation
    return Trap(lambda: run(x, y, state_path=folder / "state.json"), str(folder / "state.json"))


def _recipe(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    write(folder / "recipe.yaml")
    return Trap(lambda: Recipe.read(folder / "recipe.yaml"), str(folder / "recipe.yaml"))


def _npz(load: Callable[[Path], Any]) -> Place:
    def place(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
        write(folder / "data.npz")
        return Trap(lambda: load(folder / "data.npz"), str(folder / "data.npz"))

    return place


def _data_set(name: str, file: str, named: str) -> Place:
    def place(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        write(folder / file)
        return Trap(lambda: load_data(name, folder), str(folder / named))

    return place


def _image(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    for i, place in enumerate(folder / part / label for part in ("train", "test") for label in ("a", "b")):
        place.mkdir(parents=True)
        for j in range(3):
            Image.new("RGB", (8, 8), (10 * i + j,) * 3).save(place / f"{j}.png")
    write(folder / "train" / "a" / "evil.png")
    return Trap(lambda: load_data("folder", folder), str(folder / "train" / "a" / "evil.png"))


def _test_images(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    path = folder / "cifar-10-batches-py" / "test_batch"
    path.parent.mkdir()
    write(path)
    return Trap(lambda: load_images("cifar10", "Linf", None, folder), str(path))


def _corrupted_images(folder: Path, write: Write, _: pytest.MonkeyPatch) -> Trap:
    path = folder / "CIFAR-10-C"
    path.mkdir()
    np.save(path / "labels.npy", np.zeros(2, np.int64))
    write(path / "fog.npy")
    load, _folder = corrupted_images("cifar10", "corruptions", None, folder)
    return Trap(lambda: load(1, 1, "fog"), str(path))


PLACES: dict[str, Place] = {
    "checkpoint": _checkpoint,
    "header of a checkpoint": _checkpoint_header,
    "weights for load_weights": _weights(lambda path: load_weights(conv_net(), path)),
    "weights for create_model": _weights(lambda path: create_model("small-cnn", 10, (1, 8, 8), weights=path)),
    "weights of a guide": _weights(lambda path: RECIPES["digits-bgat"].build(guide_weights=path, verbose=False)),
    "weights of the zoo": _zoo,
    "weights of the zoo, downloaded": _zoo_download,
    "weights in torch hub's cache": _zoo_cache,
    "checkpoint of a submission": _submission,
    "result of a benchmark": _result,
    "state file of an evaluation": _state_file,
    "batch of a state directory": _state_blob("natural/step-000000000.safetensors"),
    "run of a state directory": _state_blob("run.json"),
    "state file of the published AutoAttack": _published_state,
    "recipe": _recipe,
    "npz data": _npz(lambda path: load_npz(path)),
    "npz images": _npz(read_npz_images),
    "CIFAR-10 to train on": _data_set("cifar10", "cifar-10-batches-py/data_batch_1", "."),
    "CIFAR-100 to train on": _data_set("cifar100", "cifar-100-python/train", "."),
    "SVHN": _data_set("svhn", "train_32x32.mat", "."),
    "image": _image,
    "CIFAR-10 to be judged on": _test_images,
    "corrupted images": _corrupted_images,
}
"""Where a file of others is read, by name."""


def cases() -> list[tuple[str, str]]:
    """Every place with every form, the places in turn, so that a few tries touch many places."""
    pairs = [(place, form) for form in FORMS for place in PLACES]
    return [*pairs, *(("recipe", f"the tag {tag}") for tag in YAML_TAGS)]


def writer(form: str, marker: Path, way: str) -> Write:
    """What writes the malicious file."""
    tag = YAML_TAGS.get(form.removeprefix("the tag "))
    if tag is not None:
        return lambda path: _text(path, f"id: {tag(str(marker))}\nmethod: natural\n")
    return lambda path: FORMS[form](path, Evil(marker, way))


def armed(form: str, way: str, folder: Path) -> bool:
    """Whether the file runs its code where it is read without precautions."""
    marker, path = folder / "marker", folder / "file"
    writer(form, marker, way)(path)
    with suppress(Exception):  # what the code returns need not be what was expected
        read_carelessly(path, form)
    return marker.exists()


def spring(place: str, form: str, way: str, folder: Path) -> tuple[bool, str]:
    """Put the file in its place and read it.

    :return: Whether its code ran; and ``""`` for an error that names it, else what came instead.
    """
    marker = folder / "marker"
    (folder / "in").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        trap = PLACES[place](folder / "in", writer(form, marker, way), patch)
        try:
            trap.load()
        except (ValueError, OSError, TypeError) as error:
            found = "" if trap.named in str(error) else f"{type(error).__name__}: {error}"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        else:
            found = "no error"
    return marker.exists(), found


def run(tries: int) -> Row:
    """Malicious files, one after the other, each in a fresh folder.

    :param tries: How many; :func:`cases` holds every place with every form once.
    """
    ran, failures = 0, []
    ways = itertools.cycle(WAYS)
    with tempfile.TemporaryDirectory() as root:
        for number, (place, form) in enumerate(itertools.islice(_again(), tries)):
            folder = Path(root) / str(number)
            folder.mkdir()
            way = next(ways)
            executed, found = spring(place, form, way, folder)
            ran += executed
            if executed or found:
                failures.append(f"{place} as {form} ({way}): {'executed' if executed else found}")
    return Row(
        "malicious pickles in place of checkpoints, zoo weights and state files",
        "0 executed, each refused by name",
        tries,
        tries - len(failures),
        "; ".join([f"{ran} executed, {len(PLACES)} places, {len(FORMS)} formats", *failures[:5]]),
    )


def _again() -> Iterator[tuple[str, str]]:
    return itertools.chain.from_iterable(itertools.repeat(cases()))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
