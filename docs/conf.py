"""Sphinx: the pages of this folder and the docstrings of the package as HTML. Nothing is fetched."""

import os
import re
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # signatures show the same defaults on every machine

import typer
from docutils.nodes import Element, SkipNode, math, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.writers.html5 import HTML5Translator
from typer.cli import get_docs_for_click

from art_lbgat import __version__
from art_lbgat.cli.main import app as cli
from art_lbgat.recipes import RECIPES, Recipe

project, author, release = "art-lbgat", "The art-lbgat developers", __version__
project_copyright = author
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme, html_title = "furo", f"art-lbgat {release}"
html_copy_source = False
html_math_renderer = "mathml"
smartquotes = False  # two dashes before an option stay two

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"

# Every name in a docstring has to be found, but for types of other packages, whose inventories would have to be
# fetched, and those that annotations name in the short form of imports for type checkers.
nitpicky = True
nitpick_ignore_regex = [
    ("py:class", r"(abc|art|collections|matplotlib|numpy|os|pandas|pathlib|pd|torch|types|typing_extensions)\..*"),
    ("py:class", r"tuple\[(str|int)|Attack|Axes|Mapping\[str|NDArray.*|Path|PyTorchClassifier|Report|Tensor|Terms"),
    ("py:class", r"art_lbgat\.engine\.options\.RunFields|art_lbgat\.checks\._T"),
]


def command_line() -> str:
    """Every command with its options, as Typer documents them."""
    group = typer.main.get_command(cli)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="art-lbgat", title="Command line")
    return re.sub(r"^# .*\n", "", text, count=1)


def recipes_table() -> str:
    """A row for each recipe: what is trained, how, and what was published for it, in percent."""
    rows = ["| id | objective | network / guides | eps | epochs | passes | natural | AutoAttack | PGD-20 | source |"]
    rows.append("|" + "---|" * 10)
    return "\n".join([*rows, *map(_recipe_row, RECIPES.values())])


def _recipe_row(recipe: Recipe) -> str:
    published, eps = recipe.published, recipe.eps * 255
    numbers = ["", "", ""] if published is None else [published.natural, published.autoattack, published.pgd_20]
    radius = f"{eps:g}/255" if abs(eps - round(eps)) < 1e-9 else f"{recipe.eps:g}"
    cells = [f"`{recipe.id}`", recipe.objective, " / ".join([recipe.model, ", ".join(recipe.guides)]).rstrip(" /"),
             "" if recipe.attack is None else radius, recipe.nb_epochs, recipe.cost,
             *("" if each is None else each for each in numbers), recipe.source]  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


GENERATED = {"<!-- command line -->": command_line, "<!-- recipes -->": recipes_table}
ROOT = Path(__file__).parent.parent


def complete(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Put in what is made from the package, and let links to files above ``docs`` be downloads of them."""
    for mark, make in GENERATED.items():
        if mark in source[0]:
            source[0] = source[0].replace(mark, make())
    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[A-Z]+\.md)\)", r"{download}`\1 <\2>`", source[0])


def show_math(translator: HTML5Translator, node: math | math_block) -> None:
    """An equation as MathML, which browsers show without a script from somewhere."""
    block = isinstance(node, math_block)
    equation = tex2mathml(node.astext(), as_block=block)
    scrolls = "<div style='overflow: auto hidden; padding: 0.4em 0'>"
    translator.body.append(f"{scrolls}{equation}</div>" if block else equation)
    raise SkipNode


def find_elsewhere(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Resolve a name that is documented under another module than that of the docstring."""
    if node.get("refdomain") != "py":
        return None
    node["refspecific"] = True
    where, kind, name = node["refdoc"], node["reftype"], node["reftarget"]
    return env.domains.python_domain.resolve_xref(env, where, app.builder, kind, name, node, content)


def setup(app: Sphinx) -> None:
    """Sphinx's own entry point."""
    app.add_html_math_renderer("mathml", (show_math, None), (show_math, None))
    app.connect("source-read", complete)
    app.connect("missing-reference", find_elsewhere)
