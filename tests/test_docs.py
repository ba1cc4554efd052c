"""The documents: local links lead somewhere, and the code in them runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_local_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def blocks():
    for page in PAGES:
        for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            yield pytest.param(code, id=f"{page.name}-{i}")


@pytest.mark.parametrize("code", blocks())
def test_python_blocks_run(code, tmp_path):
    """Each block by itself, with one epoch and a few samples."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    short = re.sub(r"nb_epochs=\d+", "nb_epochs=1", code)
    short = re.sub(r"x\[:\d+\], y\[:\d+\]", "x[:4], y[:4]", short)
    done = subprocess.run([sys.executable, "-c", short], capture_output=True, text=True, env=environment, cwd=tmp_path,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
