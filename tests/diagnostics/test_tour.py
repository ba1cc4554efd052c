"""The example draws the picture and prints the tables that it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

TOUR = Path(__file__).parents[2] / "examples" / "boundary_tour.py"


def test_tour_prints_its_tables_and_draws_its_picture(tmp_path):
    assert TOUR.read_text().count("\n") < 80
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(TOUR), "3", "tour.png"], capture_output=True, text=True, env=environment, cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tour.png").read_bytes().startswith(b"\x89PNG")
    rows = dict(re.findall(r"^ *(guide|natural) +natural +599 +(\d\.\d+)", done.stdout, re.MULTILINE))
    assert all(float(accuracy) > 0.7 for accuracy in rows.values())  # the calibration table, after three epochs
    assert set(rows) == {"guide", "natural"}
    for title in ("Agreement with LBGAT's guide", "Transferred discrepancy", "Boundaries apart", "quartiles"):
        assert title in done.stdout
    assert len(re.findall(r"^ *guide +LBGAT +(digit|even|above four|mean) ", done.stdout, re.MULTILINE)) == 4
