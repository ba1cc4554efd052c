"""The script that builds the leaderboard: JSON files of a clone become the rows of the CSV that is shipped."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ROOT / "art_lbgat" / "robustbench" / "leaderboard.csv"
KEYS = ("autoattack_acc", "external", "footnote", "corruptions_acc", "corruptions_mce", "corruptions_acc_3d",
        "corruptions_mce_3d")  # fmt: skip


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("build_leaderboard", ROOT / "scripts" / "build_leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped():
    with SHIPPED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def as_json(row):
    """A row of the CSV as RobustBench writes it: numbers as texts, what is not known left out."""
    facts = {key: row[key] for key in ("link", "name", "authors", "venue", "architecture", "clean_acc", "reported")}
    facts |= {"additional_data": row["additional_data"] == "true", "dataset": row["json_dataset"]}
    facts |= {"number_forward_passes": int(row["number_forward_passes"]), "eps": row["eps_text"] or None}
    facts |= {key: row[key] for key in KEYS if row[key]}
    return facts | ({"unreliable": row["unreliable"] == "true"} if row["unreliable"] else {})


def write(clone, dataset, threat_model, model_id, facts):
    path = clone / "model_info" / dataset / threat_model / f"{model_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(facts if isinstance(facts, str) else json.dumps(facts), encoding="utf-8")
    return path


MINIMAL = {
    "name": "A Title",
    "link": "https://x.org",
    "architecture": "ResNet-18",
    "clean_acc": "90.00",
    "eps": "8/255",
}


def test_the_shipped_file_is_what_the_script_makes_of_its_json_files(script, tmp_path, capsys):
    """All 236 rows, through JSON and back, with the zoo of the installed robustbench: the same bytes."""
    rows = shipped()
    assert len(rows) == 236
    for row in reversed(rows):
        write(tmp_path, row["dataset"], row["threat_model"], row["model_id"], as_json(row))
    output = tmp_path / "rebuilt.csv"
    assert script.main([str(tmp_path), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"236 rows in {output}\n"
    assert output.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ("{", "Doe2024Title.json: expected a JSON object"),
        ("[]", "Doe2024Title.json: expected a JSON object"),
        ({**MINIMAL, "eps": "8/0"}, "Doe2024Title.json: expected a JSON object"),
        ({**MINIMAL, "eps": "small"}, "small"),
        ({**MINIMAL, "clean_acc": None}, "nothing for ['clean_acc']"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(script, tmp_path, capsys, monkeypatch, facts, message):
    monkeypatch.setattr(script, "read_zoo", dict)
    output = tmp_path / "out.csv"
    assert script.main([str(tmp_path), "--output", str(output)]) == 2
    assert "expected model_info" in capsys.readouterr().err
    write(tmp_path, "cifar10", "Linf", "Doe2024Title", facts)
    assert script.main([str(tmp_path), "--output", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()
