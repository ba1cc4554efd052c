"""No malicious file runs its code; and each of them would, where it is read without precautions."""

import pytest

from qa.faults import malicious
from qa.faults.malicious import PLACES, armed, cases, run, spring
from qa.faults.malicious_files import FORMS, WAYS, YAML_TAGS


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", [*FORMS, *(f"the tag {tag}" for tag in YAML_TAGS)])
def test_the_files_are_armed(form, way, tmp_path):
    assert armed(form, way, tmp_path)


def test_nothing_is_executed():
    every = len(cases())
    assert every == len(PLACES) * len(FORMS) + len(YAML_TAGS)
    row = run(every)
    assert (row.tried, row.good) == (every, every), row.notes
    assert row.notes.startswith("0 executed")


@pytest.mark.parametrize("tag", YAML_TAGS)
def test_tags_of_yaml_in_a_recipe(tag, tmp_path):
    assert spring("recipe", f"the tag {tag}", "eval", tmp_path) == (False, "")


def test_what_is_executed_or_not_refused_is_told(monkeypatch, tmp_path):
    """The count can fail."""
    import pickle  # noqa: TID251

    def careless(folder, write, _):
        write(folder / "file")
        return malicious.Trap(lambda: pickle.loads((folder / "file").read_bytes()), "file")

    def silent(folder, write, _):
        return malicious.Trap(lambda: None, "file")

    monkeypatch.setattr(malicious, "PLACES", {"careless": careless, "silent": silent})
    row = run(2)
    assert row.good == 0
    assert row.notes.startswith("1 executed")
    assert "silent as a pickle of protocol 0 (eval): no error" in row.notes
