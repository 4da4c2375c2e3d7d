"""The example of a package of others is installed, and keeps our contracts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "third_party"


@pytest.mark.skipif(not EXAMPLE.exists(), reason="reads the files of the checkout")
@pytest.mark.slow
def test_a_package_of_others_is_installed_and_keeps_the_contracts(tmp_path):
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    run([*pip, "--no-build-isolation", "--target", installed, source], source)
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], source, first=installed)
    passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
    assert passed > 40 and "failed" not in done.stdout and "plugins" not in done.stdout, done.stdout


def run(command, folder, *, first=""):
    paths = os.pathsep.join(filter(None, [str(first), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
