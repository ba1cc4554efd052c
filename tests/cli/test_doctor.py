"""``art-lbgat doctor``: healthy here, and not when something is broken."""

import json

import torch

from art_lbgat.cli import doctor
from tests.cli.conftest import done, invoke


def test_this_environment_is_healthy():
    findings = json.loads(done("doctor", "--json").stdout)
    assert findings["healthy"] is True
    found = {each["name"]: each for each in findings["findings"]}
    assert {"torch", "robustbench", "matplotlib"} <= set(found)
    assert "pytest" not in found  # an extra
    assert found["torch"]["text"] in (torch.__version__, torch.__version__.split("+")[0])
    assert found["cuda"]["state"] == "missing"
    assert "threads of" in found["cpu"]["text"]
    assert found["zoo"]["text"] == "206 models"


def test_a_missing_package_and_a_part_that_fails_are_found_and_the_exit_code_is_1(monkeypatch):
    def broken():
        raise ImportError("robustbench is gone")

    monkeypatch.setattr(doctor, "needed_packages", lambda: ["torch", "no-such-package"])
    monkeypatch.setattr("art_lbgat.robustbench.import_robustbench", broken)
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "broken: no-such-package, robustbench" in result.stdout
    assert "not installed: pip install no-such-package" in result.stdout
    assert "ImportError: robustbench is gone" in result.stdout
