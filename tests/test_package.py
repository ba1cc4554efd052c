"""The package as a whole: what importing it brings, and the page that offers it to ART."""

import io
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from docutils.core import publish_doctree

from tests.conftest import make_data

ROOT = Path(__file__).parent.parent


def test_import_is_quick_and_brings_no_optional_package():
    code = (
        "import sys, time, torch, art.defences.trainer, art.attacks.evasion, art.estimators.classification\n"
        "import tqdm.auto\n"
        "before = set(sys.modules); start = time.perf_counter(); import art_lbgat; art_lbgat.LBGATTrainer; print(time.perf_counter() - start)\n"
        "print([m for m in ('robustbench', 'matplotlib', 'pyautoattack', 'typer', 'rich', 'timm', 'yaml') if m in set(sys.modules) - before])"
    )
    seconds, loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split("\n", 1)
    assert loaded.strip() == "[]"
    assert float(seconds) < 2  # generous: a machine may be busy; `make bench` measures


def test_the_page_for_art_is_rest_and_its_code_runs():
    page = (ROOT / "docs" / "for-art.md").read_text()
    rest = re.search(r"```rst\n(.*?)```", page, re.DOTALL)[1]
    code = textwrap.dedent(re.search(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", rest)[1])
    from art_lbgat.models import small_cnn

    x, y = make_data(24, shape=(3, 32, 32), classes=10)
    names = {"robust_model": small_cnn(10, 3, 32), "guide_model": small_cnn(10, 3, 32)}
    names |= {f"{name}_{part}": array for part in ("train", "val", "test") for name, array in (("x", x), ("y", y))}
    exec(code.replace("nb_epochs=100", "nb_epochs=1"), names)  # noqa: S102 (what the page says)
    assert names["x_test_adv"].shape == x.shape
    assert len(names["trainer"].history) == 1
    # Docutils without Sphinx's own role and directive.
    rest = re.sub(r":class:`\.(\w+)`", r"``\1``", rest).replace(".. code-block:: python", ".. code:: python")
    messages = io.StringIO()
    publish_doctree(rest, settings_overrides={"warning_stream": messages, "report_level": 1})
    assert messages.getvalue() == ""
