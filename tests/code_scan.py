"""What Python source does that could run code out of a file, told from its syntax tree.

A text search misses aliases (``import pickle as p``) and trips over comments; here names are followed through the
imports of the file.
"""

from __future__ import annotations

import ast
import re

# Reading any of these can run code, or fetches what the libraries that own it should fetch and verify.
_MODULES = re.compile(
    r"(pickle|_pickle|cPickle|pickle5|dill|cloudpickle|jsonpickle|shelve|marshal|joblib|dbm|code|codeop|"
    r"urllib|urllib3|requests|http|httpx|aiohttp|ftplib|socket|gdown|wget|pycurl)(\.|$)"
)
_ANY_USE = {
    *("eval", "exec", "__import__", "builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__"),
    *("os.system", "os.popen", "pty.spawn", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("asyncio.create_subprocess_shell", "pandas.read_pickle", "tempfile.mktemp", "torch.jit.load", "torch.hub.load"),
    *("torch.hub.load_state_dict_from_url", "torch.classes.load_library", "torch.ops.load_library", "torch.package"),
    *("torch.serialization.add_safe_globals", "torch.serialization.safe_globals", "torch.multiprocessing.reductions"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"),
    *("yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader", "yaml.CLoader", "yaml.CFullLoader", "yaml.CUnsafeLoader"),
}
_PROCESSES = re.compile(r"os\.(exec|spawn|posix_spawn)\w*")
_SHELLS = re.compile(r"subprocess\.(run|Popen|call|check_call|check_output)")
_IMPORTERS = {"importlib.import_module", "importlib.__import__", "runpy.run_module"}
_MUST_SAY = {
    "torch.load": ("weights_only", True),
    "torch.serialization.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "numpy.lib.format.read_array": ("allow_pickle", False),
}
_UNPACK = ("extractall", "unpack_archive")


def findings(source: str) -> list[str]:
    """What is forbidden in a file, as the names that it was found under, each once, sorted."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {f"import {alias.name}" for alias in node.names if _MODULES.match(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"import {name}" for name in _imported(node) if _MODULES.match(name) or name in _ANY_USE}
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            name = _dotted(node, aliases)
            if name is not None and (name in _ANY_USE or _PROCESSES.fullmatch(name) or _of_banned(name, aliases)):
                found.add(name)
        elif isinstance(node, ast.Call):
            found |= _of_call(node, aliases)
    return sorted(found)


def _aliases(tree: ast.Module) -> dict[str, str]:
    """Full names by the names that imports bind."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                bound[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
    return bound


def _imported(node: ast.ImportFrom) -> list[str]:
    return [f"{node.module or ''}.{alias.name}" for alias in node.names] if not node.level else []


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, aliases)
        return None if before is None else f"{before}.{node.attr}"
    return None


def _of_banned(name: str, aliases: dict[str, str]) -> bool:
    """Something out of a forbidden module that is imported; a variable of that name is none."""
    return bool(_MODULES.match(name)) and "." in name and name.partition(".")[0] in {
        full.partition(".")[0] for full in aliases.values()
    }  # fmt: skip


def _of_call(node: ast.Call, aliases: dict[str, str]) -> set[str]:
    name = _dotted(node.func, aliases)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if isinstance(node.func, ast.Attribute) and node.func.attr in _UNPACK and _constant(given.get("filter")) != "data":
        return {f"{node.func.attr} without filter='data'"}
    if name is None:
        return set()
    if name.rpartition(".")[2] in _UNPACK and _constant(given.get("filter")) != "data":
        return {f"{name.rpartition('.')[2]} without filter='data'"}
    if name == "compile":
        return {"compile"}
    if name in _IMPORTERS or name == "__import__":
        target = _constant(node.args[0]) if node.args else None
        return {f"import {target}"} if isinstance(target, str) and _MODULES.match(target) else set()
    if name in _MUST_SAY:
        argument, value = _MUST_SAY[name]
        return set() if _constant(given.get(argument)) is value else {f"{name} without {argument}={value}"}
    # Also **options, in which anything may be.
    if _SHELLS.fullmatch(name) and (None in given or _constant(given.get("shell", ast.Constant(False))) is not False):
        return {f"{name} with shell"}
    return set()


def _constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None
