"""Build ``art_lbgat/robustbench/leaderboard.csv`` from a clone of RobustBench.

    python scripts/build_leaderboard.py PATH_TO_CLONE [--output FILE]

One row per ``model_info/<dataset>/<threat model>/<model id>.json``. Numbers stay the texts that RobustBench wrote.
``in_model_zoo`` and ``zoo_preprocessing`` are what the installed robustbench says, not the clone.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

from art_lbgat.robustbench_import import import_robustbench

OUTPUT = Path(__file__).parent.parent / "art_lbgat" / "robustbench" / "leaderboard.csv"
COLUMNS = (
    *("dataset", "threat_model", "model_id", "name", "link", "authors", "venue", "architecture"),
    *("eps", "eps_text", "footnote_eps", "clean_acc", "autoattack_acc", "external", "reported"),
    *("corruptions_acc", "corruptions_mce", "corruptions_acc_3d", "corruptions_mce_3d"),
    *("additional_data", "synthetic_images", "number_forward_passes", "unreliable"),
    *("in_model_zoo", "zoo_preprocessing", "json_dataset", "footnote"),
)
_FROM_JSON = frozenset(COLUMNS) - {
    *("dataset", "threat_model", "model_id", "eps", "eps_text", "footnote_eps"),
    *("synthetic_images", "in_model_zoo", "zoo_preprocessing", "json_dataset"),
}
_REQUIRED = ("name", "link", "architecture", "clean_acc")
_FOOTNOTE_EPS = re.compile(r"Uses [^=]*= ?(\d*\.\d+)\b.*?instead of")
_SYNTHETIC = re.compile(r"(~?\d+(?:\.\d+)?[KM]) synthetic images")

Zoo: TypeAlias = Mapping[tuple[str, str, str], Mapping[str, Any]]


def read_clone(clone: Path, zoo: Zoo) -> list[dict[str, str]]:
    """The rows of all JSON files of a clone, by data set, threat model and id.

    :param clone: A directory that holds ``model_info``.
    :param zoo: As :func:`read_zoo` gives it.
    :raises FileNotFoundError: If there are no such files.
    :raises ValueError: If one is not what RobustBench writes; the file is named.
    """
    paths = sorted((clone / "model_info").glob("*/*/*.json"))
    if not paths:
        raise FileNotFoundError(f"clone: expected model_info with a JSON file for each model in {clone}, found none.")
    rows = [read_row(path, zoo) for path in paths]
    return sorted(rows, key=lambda row: (row["dataset"], row["threat_model"], row["model_id"]))


def read_row(path: Path, zoo: Zoo) -> dict[str, str]:
    """One row, ``""`` where the file says nothing.

    The data set is that of the folder: some files of CIFAR-100 say ``cifar10``, which is kept in ``json_dataset``.

    :param path: ``.../<dataset>/<threat model>/<model id>.json``.
    :param zoo: As :func:`read_zoo` gives it.
    :raises ValueError: If it is no JSON object, or lacks what every row has.
    """
    dataset, threat_model, model_id = path.parts[-3], path.parts[-2], path.stem
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in _REQUIRED if not facts.get(key)]
        eps_text = text(facts.get("eps"))
        eps = eps_number(eps_text)
    except (ValueError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: expected a JSON object as RobustBench writes it ({error}).") from error
    if missing:
        raise ValueError(f"{path}: expected at least the keys {list(_REQUIRED)}, got nothing for {missing}.")
    footnote = text(facts.get("footnote"))
    entry = zoo.get((dataset, threat_model, model_id))
    return {
        **{column: text(facts.get(column)) for column in COLUMNS if column in _FROM_JSON},
        "dataset": dataset,
        "threat_model": threat_model,
        "model_id": model_id,
        "eps": eps,
        "eps_text": eps_text,
        "footnote_eps": first_group(_FOOTNOTE_EPS, footnote),
        "synthetic_images": first_group(_SYNTHETIC, footnote),
        "in_model_zoo": text(entry is not None),
        "zoo_preprocessing": text((entry or {}).get("preprocessing")),
        "json_dataset": text(facts.get("dataset")),
    }


def text(value: Any) -> str:
    """A value of a JSON file as one line of text: ``true`` and ``false``, ``""`` for null."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())


def eps_number(eps_text: str) -> str:
    """``"8/255"`` as a decimal number, in the shortest digits that give the same float; ``""`` stays.

    :raises ValueError: If it is neither a number nor a fraction.
    """
    return repr(float(Fraction(eps_text.replace(" ", "")))) if eps_text else ""


def first_group(pattern: re.Pattern[str], footnote: str) -> str:
    """What the first group of ``pattern`` finds, else ``""``."""
    found = pattern.search(footnote)
    return found[1] if found else ""


def read_zoo() -> Zoo:
    """The model zoo of the installed robustbench, by data set, threat model and id."""
    import_robustbench()
    dicts = importlib.import_module("robustbench.model_zoo").model_dicts
    return {
        (dataset.value, threat_model.value, model_id): entry
        for dataset, threat_models in dicts.items()
        for threat_model, entries in threat_models.items()
        for model_id, entry in entries.items()
    }


def write_rows(rows: Sequence[Mapping[str, str]], output: Path) -> None:
    """Write the rows as CSV with the columns of the leaderboard."""
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and build the file.

    :param arguments: Those of the command line if None.
    :return: The exit code: 0, or 2 for a clone that cannot be read.
    """
    parser = argparse.ArgumentParser(description="Build the leaderboard of art-lbgat from a clone of RobustBench.")
    parser.add_argument("clone", type=Path, help="a clone of RobustBench, the directory that holds model_info")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the CSV file to write (default: the package's)")
    options = parser.parse_args(arguments)
    try:
        rows = read_clone(options.clone, read_zoo())
        write_rows(rows, options.output)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{len(rows)} rows in {options.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
