"""The short version of ``make faults``: each fault is injected a few times (the long one writes docs/reliability.md)."""

import pytest

from qa.faults import damage, disk, growth, kills, nonfinite, processes
from qa.faults.__main__ import FAULTS, table
from qa.faults.row import Row


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda: kills.run(24), id="kills"),
        pytest.param(lambda: damage.run(36), id="damage"),
        pytest.param(disk.run, id="disk"),
        pytest.param(nonfinite.run, id="non-finite"),
        pytest.param(lambda: growth.run(100), id="growth"),
    ],
)
def test_short(fault):
    row = fault()
    assert row.tried > 0
    assert row.good == row.tried, row.notes


def test_processes_train_as_one():
    row = processes.equal()
    assert row.good == row.tried == 11, row.notes


def test_a_killed_process_ends_the_other_and_the_run_goes_on():
    row = processes.killed(victims=(1,))
    assert row.good == row.tried == 3, row.notes


def test_the_table_has_a_row_for_every_fault():
    rows = [(Row(name, "asked", 2, 2, "notes"), 1.0) for name in FAULTS]
    text = table(rows, 2.0)
    assert text.count("\n| ") == len(FAULTS) + 1
    assert all(f"| {name} |" in text for name in FAULTS)
