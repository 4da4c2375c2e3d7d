"""How long a function, its docstring aside, and a file may be, counted after `ruff format`."""

import ast
from pathlib import Path

import pytest

import ase_mlelec
import ase_mlelec_entry_points

FUNCTION, FILE = 60, 400  # lines at most
FOLDERS = [Path(package.__file__).parent for package in (ase_mlelec, ase_mlelec_entry_points)]
FILES = {
    f"{folder.name}/{path.relative_to(folder).as_posix()}": path for folder in FOLDERS for path in folder.rglob("*.py")
}
# Longer ones, at most two, each with the reason why it is easier to read in one piece.
EXCEPTIONS: dict[str, str] = {}


def longest(path):
    """(lines of the file; name and lines of every function in it)."""
    text = path.read_text(encoding="utf-8")
    functions = [
        (node.name, node.end_lineno - node.lineno + 1 - docstring_lines(node))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return len(text.splitlines()), functions


def docstring_lines(node):
    """Lines of the docstring, which is as long as a function has arguments, not as it is complicated."""
    return node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0


def too_long(name, path):
    n_lines, functions = longest(path)
    found = [f"{name}::{function} has {lines} lines" for function, lines in functions if lines > FUNCTION]
    return found + ([f"{name} has {n_lines} lines"] if n_lines > FILE else [])


@pytest.mark.parametrize("name", sorted(FILES))
def test_functions_and_files_are_short(name):
    found = [each for each in too_long(name, FILES[name]) if each.split(" has ")[0] not in EXCEPTIONS]
    assert not found, f"split by subject: {'; '.join(found)}"


def test_exceptions_are_few_and_needed():
    assert len(EXCEPTIONS) <= 2 and all(EXCEPTIONS.values())
    for name in EXCEPTIONS:
        path = name.split("::")[0]
        assert any(each.startswith(f"{name} has ") for each in too_long(path, FILES[path])), f"{name} is short now"


def test_what_is_too_long_is_found(tmp_path):
    path = tmp_path / "long.py"
    path.write_text("def short():\n    pass\n\n\nasync def long():\n" + "    pass\n" * FUNCTION + "\n" * FILE)
    assert too_long("long.py", path) == ["long.py::long has 61 lines", f"long.py has {FUNCTION + FILE + 5} lines"]
