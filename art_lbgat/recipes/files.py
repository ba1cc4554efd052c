"""Recipes and configurations as files: YAML or TOML, read without running code."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from art_lbgat.checks import check_path
from art_lbgat.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NONE = "none"
"""How None is written where there is no null, and on a command line."""


def read_mapping(path: str | Path) -> dict[str, Any]:
    """What a YAML file holds, or a TOML file (whose name ends in ``.toml``).

    :param path: The file.
    :raises FileNotFoundError: If there is no such file.
    :raises TypeError: If it holds no mapping from names to values.
    :raises ValueError: If it is no YAML, or no TOML.
    """
    import yaml

    path = check_path(path, "path")
    kind = "TOML" if is_toml(path) else "YAML"
    try:
        text = path.read_text(encoding="utf-8")
        values: Any = tomllib.loads(text) if kind == "TOML" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"path: there is no file {path}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # also bytes that are no text
        raise ValueError(f"path: {path} is no {kind} file ({error or type(error).__name__}).") from error
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise TypeError(f"path: {path} holds {type(values).__name__}; expected a mapping from fields to values.")
    return dict(values)


def write_mapping(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write plain values as YAML, or as TOML where the name ends in ``.toml``.

    :param path: The file; one that exists is replaced, as a whole or not at all.
    :param values: Plain values, and mappings of such; without None for TOML.
    :raises OSError: If it cannot be written.
    """
    import tomli_w
    import yaml

    path = check_path(path, "path")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: there is no directory {path.parent} to write {path.name} to.")
    text = tomli_w.dumps(values) if is_toml(path) else yaml.safe_dump(dict(values), sort_keys=False)
    write_text(path, text)


def without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not None, of mappings in it too.

    :param values: A mapping.
    """
    found = {name: without_null(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def is_toml(path: str | Path) -> bool:
    """Whether the name of a file says that it is TOML.

    :param path: The file.
    """
    return check_path(path, "path").suffix.lower() == ".toml"
