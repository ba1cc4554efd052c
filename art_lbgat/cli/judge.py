"""``art-lbgat evaluate``, ``predict`` and ``report``: any classifier under any attacks, as a table and a page."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_lbgat.cli.output import make_reporter, new_file, print_frame, readable, say, typed

if TYPE_CHECKING:
    import pandas
    from art.estimators.classification import PyTorchClassifier

    from art_lbgat.data import DataSet
    from art_lbgat.runs import Run

_PAGE_IMAGES = 1000
TARGET = "The directory of a run, a checkpoint or weights in it, a name of RobustBench's zoo, or module:function."
AllowTrained = Annotated[bool, typer.Option("--allow-trained", help="Take images trained on too; flags say how many.")]
_EXPECTED = TARGET[:-1].replace("The directory", "the directory")


def evaluate(
    target: Annotated[str, typer.Argument(help=TARGET)],
    attack: Annotated[list[str] | None, typer.Option(help="pgd-20, cw-20, autoattack, ...; repeatable.")] = None,
    eps: Annotated[float | None, typer.Option(help="Radius; that of the run or the leaderboard if left out.")] = None,
    norm: Annotated[str | None, typer.Option(help="inf or 2; that of the run or the leaderboard if left out.")] = None,
    n: Annotated[int | None, typer.Option(help="Images, the same number of each class; all if left out.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="AutoAttack too, on so many of them; 0 for none.")] = 0,
    data: Annotated[str | None, typer.Option(help="Name of the data; that of the target if left out.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; not needed for the digits.")] = None,
    part: Annotated[str, typer.Option(help="test or validation.")] = "test",
    dataset: Annotated[str, typer.Option(help="Data set of a zoo name.")] = "cifar10",
    threat_model: Annotated[str, typer.Option(help="Threat model of a zoo name: Linf, L2, corruptions.")] = "Linf",
    model_dir: Annotated[Path, typer.Option(help="Directory of the zoo's weights.")] = Path("models"),
    batch_size: Annotated[int, typer.Option(help="Images per batch.")] = 250,
    seed: Annotated[int, typer.Option(help="Seed of every attack.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    allow_trained: AllowTrained = False,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this new file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write a page to this new HTML file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and warnings only.")] = False,
    json_lines: Annotated[bool, typer.Option("--json-lines", help="Print a JSON object for each row.")] = False,
) -> None:
    """Evaluate a classifier: natural accuracy and PGD-20, or the attacks that are named; every x_adv is verified."""
    from art_lbgat.checks import check_choice
    from art_lbgat.evaluation.attacks import plan_attacks
    from art_lbgat.files import write_text
    from art_lbgat.processes import is_main_process
    from art_lbgat.runs import evaluate_images, evaluation_images

    reporter = make_reporter(quiet=quiet, json_lines=json_lines)
    new_file(csv, "csv")
    new_file(output, "output")
    check_choice(part, "part", ("test", "validation"))
    attacks = attack or ["natural", "pgd-20"]
    if output is not None:
        attacks = ["natural", *(each for each in attacks if each != "natural")]
        if len(attacks) == 1 and not n_autoattack:
            raise ValueError("attack: expected one beside natural for a page (--output), got none.")
    plan_attacks(attacks, ["guide"])  # before anything is loaded
    found = find_target(target, dataset, threat_model, model_dir, choose_device(device))
    radius = found.eps if eps is None else eps
    if radius is None:
        raise ValueError("eps: expected a radius (--eps), since the target names none.")
    kind = (found.norm or "inf") if norm is None else check_choice(norm, "norm", ("inf", "2"))
    how: dict[str, Any] = {"eps": radius, "norm": kind, "batch_size": batch_size, "seed": seed}
    images = evaluation_images(found.load_data(data, root), n, part)
    label = found.run.check_unseen(images, allow=allow_trained) if found.run is not None else ""
    x, y = images.arrays()
    sources = {"guide": found.guide} if found.guide is not None and "transfer" in attacks else None
    table = evaluate_images(found.classifier, x, y, n_autoattack, label=label, attacks=attacks, sources=sources, **how)
    if csv is not None and is_main_process():
        write_text(csv, table.to_csv(index=False))
    title = f"{found.name}, {part} images"
    reporter.table(title, table)
    if output is not None:
        own = found.run if data in (None, found.data) else None
        write_page(
            output, found.classifier, x, y, table, name=found.name, title=title, data=data or found.data,
            guide=found.guide, class_names=own.class_names if own else (),
            config=found.run.config.as_toml() if found.run else None, **how,
        )  # fmt: skip
        reporter.say(f"saved in {output}")


def predict(
    target: Annotated[str, typer.Argument(help="The directory of a run, or a checkpoint or weights in it.")],
    image: Annotated[list[Path], typer.Argument(help="Image files; brought to the size that was trained on.")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    csv: Annotated[Path | None, typer.Option(help="Write the table to this new file.")] = None,
) -> None:
    """Classify image files: the class that is predicted for each, and its probability (softmax) in percent."""
    import numpy as np
    import pandas
    from scipy.special import softmax

    from art_lbgat.data import read_images

    new_file(csv, "csv")
    found = find_target(target, device_type=choose_device(device))
    shape = tuple(found.classifier.input_shape)
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2]:
        raise ValueError(f"target: expected a classifier of square RGB images, got input_shape {shape}.")
    x = read_images(image, shape[1], "image").astype(np.float32) / np.float32(255)
    shares = softmax(found.classifier.predict(x).astype(np.float64), axis=1)
    names = found.run.class_names if found.run else []
    table = pandas.DataFrame(
        {
            "image": list(map(readable, image)),
            "class": [names[k] if names else str(k) for k in shares.argmax(axis=1).tolist()],
            "probability %": (100 * shares.max(axis=1)).round(1),
        }
    )
    if csv is not None:
        table.to_csv(csv, index=False)
    print_frame(found.name, table)


def report(
    directory: Annotated[Path, typer.Argument(help="Directory of a run of art-lbgat train.")],
    output: Annotated[Path | None, typer.Option(help="The HTML file; DIRECTORY/report.html if left out.")] = None,
    baseline: Annotated[list[Path] | None, typer.Option(help="Directory of another run; repeatable.")] = None,
    n: Annotated[int | None, typer.Option(help="Images, the same number of each class; all if left out.")] = None,
    n_autoattack: Annotated[int, typer.Option(help="AutoAttack too, on so many of them; 0 for none.")] = 0,
    root: Annotated[Path | None, typer.Option(help="Where the data lies; as in training if left out.")] = None,
    allow_trained: AllowTrained = False,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Make the page of a run again: results, curves, pictures, decision regions, sanity checks, provenance."""
    import pandas

    from art_lbgat.runs import CONFIG, HISTORY, PAGE, evaluate_images, evaluation_images, load

    baselines = baseline or []
    for option, path in (("directory", directory), *(("baseline", path) for path in baselines)):
        if not (path / CONFIG).is_file():
            raise FileNotFoundError(f"{option}: there is no run in {path}; expected the --output of a training.")
    if len({path.resolve() for path in (directory, *baselines)}) < len(baselines) + 1:
        raise ValueError(f"baseline: expected different runs, got {', '.join(map(str, baselines))}.")
    new_file(output, "output")
    device_type = choose_device(device)
    found = load(directory, device_type)
    runs = {found.name: found}
    for path in baselines:
        other = load(path, device_type)
        named = (other.name, f"{other.name} ({path.name})", f"{other.name} ({path})")
        runs[next(each for each in named if each not in runs)] = other
    for run in runs.values():
        if run.class_names != found.class_names:
            raise ValueError(f"baseline: expected the classes {found.class_names}, got {run.class_names}.")
    data = found.matched(found.config.load_data(root))
    images = evaluation_images(data, n)
    label = "; ".join({run.check_unseen(images, allow=allow_trained): "" for run in runs.values()}).strip("; ")
    x, y = images.arrays()
    models = {name: run.classifier for name, run in runs.items()}
    how: dict[str, Any] = {"eps": found.eps, "norm": found.norm, "seed": found.config.seed}
    results = evaluate_images(models if baselines else found.classifier, x, y, n_autoattack, label=label, **how)
    epochs = {name: run.recipe.nb_epochs for name, run in runs.items()}
    budgets = f"Trained for different numbers of epochs: {', '.join(f'{name} {k}' for name, k in epochs.items())}."
    histories = {name: run.directory / HISTORY for name, run in runs.items()}
    place = output or directory / PAGE
    write_page(
        place, models.pop(found.name), x, y, results, name=found.name, title=title or found.config.title,
        baselines=models or None, guide=found.guides[0] if found.guides else None,
        history={name: pandas.read_csv(path) for name, path in histories.items() if path.is_file()},
        notes=[budgets] if len(set(epochs.values())) > 1 else [], data=found.recipe.data, class_names=data.class_names,
        config=found.config.as_toml(), **how,
    )  # fmt: skip
    say(f"saved in {place}")


def published_rows(data: str | None, norm: str) -> pandas.DataFrame | None:
    """RobustBench's leaderboard of a data set and norm, or None where there is none."""
    from art_lbgat.robustbench import leaderboard

    with suppress(ValueError):
        return leaderboard(str(data), "Linf" if norm == "inf" else "L2")
    return None


def write_page(
    path: Path, classifier: PyTorchClassifier, x: Any, y: Any, results: pandas.DataFrame, *, name: str,
    data: str | None, norm: str, notes: Sequence[str] = (), **more: Any,
) -> None:  # fmt: skip
    """The page about a classifier: its numbers are those of ``results``, its curves and pictures of some images.

    All processes have to come here, as attacks are shared; the main one writes.
    """
    from dataclasses import replace

    from art_lbgat.processes import is_main_process
    from art_lbgat.report import evaluate_for_report, write_report

    n = min(len(x), _PAGE_IMAGES)
    content = evaluate_for_report(
        classifier, x[:n], y[:n], name=name, norm="inf" if norm == "inf" else 2, attacks=("natural", "pgd-20"),
        commands=[typed()], leaderboard=published_rows(data, norm), **more,
    )  # fmt: skip
    named = results if "model" in results else results.assign(model=name)
    named = named[["model", *named.columns.drop("model")]]
    if is_main_process():
        write_report(path, replace(content, results=named, attacks=named, threat="", notes=notes))


@dataclass(frozen=True)
class Target:
    """A classifier that a command line names, and what is known of how it is to be evaluated."""

    name: str
    classifier: PyTorchClassifier
    eps: float | None = None
    norm: str | None = None
    data: str | None = None
    run: Run | None = None

    @property
    def guide(self) -> PyTorchClassifier | None:
        """Its guide, where its run has one."""
        return self.run.guides[0] if self.run is not None and self.run.guides else None

    def load_data(self, name: str | None, root: Path | None) -> DataSet:
        """Its data set, or that of another name, from ``root``, or from where it lay in training."""
        from art_lbgat.data import load_data

        if self.run is not None and name in (None, self.data):
            return self.run.matched(self.run.config.load_data(root))
        name = name or self.data
        if name is None:
            raise ValueError("data: expected the name of a data set (--data), since the target names none.")
        data = load_data(name, root)
        return data if self.run is None else self.run.matched(data)


def find_target(
    text: str, dataset: str = "cifar10", threat_model: str = "Linf", model_dir: Path = Path("models"),
    device_type: str | None = None,
) -> Target:  # fmt: skip
    """The classifier that a path, ``module:function`` (called without arguments) or a name of the zoo stands for."""
    path = Path(text)
    if path.exists():
        from art_lbgat.runs import load

        with _as_target("path: "):
            run = load(path, device_type)
        return Target(run.name, run.classifier, run.eps, run.norm, run.recipe.data, run)
    if path.suffix in (".safetensors", ".pt", ".toml") or len(path.parts) > 1:
        raise FileNotFoundError(f"target: there is no file or directory {text}; expected {_EXPECTED}.")
    if ":" in text:
        return _of_function(text)
    from art_lbgat.robustbench import load_classifier
    from art_lbgat.robustbench.result import EPS

    with _as_target("name: ", "no path, and no name: "):
        classifier = load_classifier(text, dataset, threat_model, model_dir, device_type=device_type)
    radius, norm = EPS.get((dataset, threat_model)), {"Linf": "inf", "L2": "2"}.get(threat_model)
    return Target(text, classifier, None if radius is None else radius.value, norm, dataset)


@contextmanager
def _as_target(argument: str, before: str = "") -> Iterator[None]:
    """An error about an argument of the function that is called is one about the target."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if not str(error).startswith(argument):
            raise
        raise type(error)(f"target: {before}{str(error).removeprefix(argument)}") from error


def _of_function(text: str) -> Target:
    from art.estimators.classification import PyTorchClassifier

    module_name, _, function_name = text.partition(":")
    sys.path.insert(0, "")  # as python -m has it
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the code of a user raises
        what = f"the module of {text!r} cannot be imported ({type(error).__name__}: {error})"
        raise ValueError(f"target: {what}.") from error
    finally:
        sys.path.remove("")
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"target: the module {module_name!r} has no function {function_name!r}; expected {_EXPECTED}.")
    try:
        classifier = function()
    except Exception as error:  # likewise
        what = f"{text}, called without arguments, failed ({type(error).__name__}: {error})"
        raise ValueError(f"target: {what}.") from error
    if not isinstance(classifier, PyTorchClassifier):
        raise TypeError(f"target: {text} returned {type(classifier).__name__}; expected a PyTorchClassifier.")
    return Target(function_name, classifier)


def choose_device(device: str) -> str | None:
    """What ``device_type`` is for ``auto``, ``cpu`` or ``cuda``; with torchrun each process takes its own GPU."""
    import torch

    from art_lbgat.checks import check_choice

    check_choice(device, "device", ("auto", "cpu", "cuda"))
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device: expected 'cpu' or 'auto', since CUDA is not available here, got 'cuda'.")
    local = os.environ.get("LOCAL_RANK", "")
    if device != "cpu" and available and local.isdigit() and os.environ.get("WORLD_SIZE", "1") != "1":
        if int(local) >= torch.cuda.device_count():
            raise ValueError(
                f"device: expected a GPU for each process, got {torch.cuda.device_count()} and process {local} (from "
                "0) on this machine; lower --nproc-per-node, or take --device cpu."
            )
        torch.cuda.set_device(int(local))
    return {"auto": None, "cpu": "cpu", "cuda": "gpu"}[device]
