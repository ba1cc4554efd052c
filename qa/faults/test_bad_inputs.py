"""Bad inputs, the short version: every public function is in the table, its right call works, wrong ones end well."""

import pytest
import torch

from qa.faults.bad_inputs import CALLS, Pair, attempt, elsewhere, frozen, pairs, run
from qa.faults.call import Call
from qa.faults.public_calls import EXCEPTIONS, public_names
from qa.faults.wrong_values import each

_SLOW = ("run_study",)  # starts processes; tests/study runs it


def test_wrong_values_end_in_an_error_that_names_the_argument():
    row = run(len(pairs()))  # a try for each argument
    assert row.tried == len(pairs()) > 500
    assert row.good == row.tried, row.notes


def test_every_public_name_is_in_the_table_or_excepted_with_a_reason():
    names = public_names()
    assert len(names) > 80
    tabled = {call.name for call in CALLS}
    missing = [full for full, name in names.items() if name not in tabled and full not in EXCEPTIONS]
    assert missing == []
    assert [full for full in EXCEPTIONS if full not in names] == []
    once = [full for full, name in names.items() if list(names.values()).count(name) == 1]
    assert [full for full in EXCEPTIONS if full in once and names[full] in tabled] == []
    assert len(tabled) == len(CALLS)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_the_right_call_works(call):
    if call.name in _SLOW:
        pytest.skip("starts processes; tests/study runs it")
    function, arguments, *_ = call.make()
    with elsewhere():
        if call.missing:
            with pytest.raises(FileNotFoundError):
                function(**arguments)
        else:
            function(**arguments)


def made(function, **right):
    return Pair(Call("f", lambda: (function, right), {"x": [each(lambda: None)]}), "x")


def refuses(x):
    raise ValueError("x: expected a list, got None.")


def misnames(x):
    raise ValueError("expected a list, got None.")


def looks_up(x):
    return {"a": 1}[x]


def writes(x, y):
    y.append(3)
    raise ValueError("x: expected a list, got None.")


def hangs(x):
    while True:
        pass


def test_the_watch_itself_tells_good_from_bad(monkeypatch):
    monkeypatch.setattr("qa.faults.bad_inputs.LIMIT", 0.2)
    right = {"x": [1]}
    assert attempt(made(refuses, **right), lambda _: None)[1] == ""
    assert "does not name it" in attempt(made(misnames, **right), lambda _: None)[1]
    assert "KeyError" in attempt(made(looks_up, **right), lambda _: None)[1]
    assert attempt(made(lambda x: None, **right), lambda _: None)[1] == "accepted"
    assert attempt(made(writes, x=[1], y=[2]), lambda _: None)[1] == "inputs changed"
    assert "Hang" in attempt(made(hangs, **right), lambda _: None)[1]


def test_frozen_sees_a_single_bit():
    net = torch.nn.Linear(2, 2)
    before = frozen(net)
    assert frozen(net) == before
    with torch.no_grad():
        net.weight[0, 0] = torch.nextafter(net.weight[0, 0], torch.tensor(9.0))
    assert frozen(net) != before
