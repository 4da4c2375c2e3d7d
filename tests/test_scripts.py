"""Scripts of examples/ and benchmarks/ use names that their modules have, which nothing else checks before they run."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = """\
import ast, importlib.util, sys
from pathlib import Path
from types import ModuleType

def missing(path):
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # as Python does for a script
    spec.loader.exec_module(module)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = getattr(module, node.value.id, None)
            if isinstance(used, ModuleType) and not hasattr(used, node.attr):
                yield f"{path.name}:{node.lineno}: {node.value.id} has no {node.attr}"

paths = [Path(each) for each in sys.argv[1:]]
print("\\n".join(line for path in paths for line in missing(path)), end="")
"""


def complaints(*paths):
    """What the check finds in scripts, all in one process, as the imports take long."""
    run = subprocess.run([sys.executable, "-c", CHECK, *map(str, paths)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["benchmarks", "examples", "examples/dft"])
def test_modules_have_what_scripts_use(folder):
    scripts = sorted((ROOT / folder).glob("*.py"))
    assert len(scripts) > 10
    assert not complaints(*scripts)


def test_a_missing_name_is_found(tmp_path):
    (tmp_path / "other.py").write_text("here = 1\n")
    script = tmp_path / "script.py"
    script.write_text("import other\n\n\ndef f():\n    return other.here, other.gone\n")
    assert complaints(script) == "script.py:5: other has no gone"
