"""``art-lbgat doctor``: healthy here, and not when something is broken."""

import json

import pytest
import torch
from art_lbgat.commands import checkup

from tests.commands.conftest import done, invoke


@pytest.fixture(scope="module")
def findings():
    return json.loads(done("doctor", "--json").stdout)


def test_this_environment_is_healthy(findings):
    assert findings["healthy"] is True
    found = {each["name"]: each for each in findings["findings"]}
    assert found["torch"]["text"] == torch.__version__.split("+")[0] or found["torch"]["text"] == torch.__version__
    assert found["cuda"]["state"] == "missing"
    assert "threads of" in found["cpu"]["text"]
    assert found["zoo"]["text"] == "206 models"


def test_a_step_is_equal_to_its_equations(findings):
    tested = {each["name"]: each for each in findings["findings"] if each["group"] == "self test"}
    assert list(tested) == ["x_adv", "loss", "two steps"]
    assert "equal to the bit" in tested["x_adv"]["text"]
    assert "LBGAT on the digits in" in tested["two steps"]["text"]


def test_a_wrong_attack_and_a_missing_package_are_found_and_the_exit_code_is_1(monkeypatch):
    real = checkup._reference
    monkeypatch.setattr(checkup, "_reference", lambda *args: (real(*args)[0] + 0.01, real(*args)[1] + 0.1))
    monkeypatch.setattr(checkup, "_NEEDED", ("torch", "no-such-package"))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "broken: no-such-package, x_adv, loss" in result.stdout
    assert "not installed: pip install no-such-package" in result.stdout


def test_a_part_that_fails_is_a_finding(monkeypatch):
    def _robustbench():
        raise ImportError("robustbench is gone")
        yield

    monkeypatch.setattr(checkup, "_robustbench", _robustbench)
    monkeypatch.setattr(checkup, "_self_test", lambda: iter(()))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "ImportError: robustbench is gone" in result.stdout


def test_it_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(checkup._self_test())
    assert torch.rand(1) == expected
