"""What other programs see of the installed package: plugins, file formats, command line."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, version

import pytest
from ase.calculators.calculator import BaseCalculator

import ase_mlelec
from ase_mlelec_entry_points import ioformats
from ase_mlelec_entry_points.cli.main import COMMANDS, main
from ase_mlelec_entry_points.cli.test import warn_unfinished

CALCULATORS = [
    "DeepDOSCalculator",
    "DeepPotCalculator",
    "DeepWannierCalculator",
    "MLDFTCalculator",
    "WannierTBCalculator",
]


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300)


def test_version():
    assert version("ase-mlelec") == ase_mlelec.__version__


def test_version_of_a_checkout_that_is_not_installed(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    monkeypatch.delitem(vars(ase_mlelec), "__version__", raising=False)
    assert ase_mlelec.__version__ == "0+unknown"
    monkeypatch.delitem(vars(ase_mlelec), "__version__")


def test_plugins_import_no_torch():
    pytest.importorskip("ase._4.plugins")
    result = run_python(
        "-W",
        "error",
        "-c",
        (
            "import sys; from ase._4.plugins import plugins;"
            "print(*sorted(plugin.name for plugin in plugins.by_package['ase_mlelec'].calculators));"
            "print('torch' in sys.modules)"
        ),
    )
    assert result.stdout.splitlines() == [" ".join(CALCULATORS), "False"], result.stderr


@pytest.mark.parametrize("name", CALCULATORS)
def test_plugins_lead_to_the_calculators(name):
    plugins = pytest.importorskip("ase._4.plugins").plugins
    (plugin,) = (plugin for plugin in plugins.calculators if plugin.name == name)
    assert plugin.implementation is getattr(ase_mlelec, name)
    assert issubclass(plugin.implementation, BaseCalculator)
    assert plugin.version == ase_mlelec.__version__
    assert plugin.citation


def test_no_plugins_where_ase_has_none():
    result = run_python(
        "-c",
        "import sys; sys.modules['ase._4'] = None;"
        "from ase_mlelec_entry_points.plugins import __ase_plugins__; print(__ase_plugins__)",
    )
    assert result.stdout.strip() == "set()", result.stderr


def test_no_plugins_where_ase_wants_other_arguments():
    pytest.importorskip("ase._4.plugins")
    result = run_python(
        "-c",
        "import importlib, ase._4.plugins.plugin as theirs\n"
        "import ase_mlelec_entry_points.plugins as ours\n"
        "theirs.CalculatorPlugin = lambda name: name\n"
        "print(importlib.reload(ours).__ase_plugins__)",
    )
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.parametrize("option", ["--plugins", "--formats"])
def test_ase_info(option):
    """Walks through the plugins of all packages, and fails for all of them where one of ours is not in order."""
    pytest.importorskip("ase._4.plugins")
    result = run_python("-m", "ase", "info", option)
    assert result.returncode == 0, result.stderr
    assert "mlelec-h5" in result.stdout


def test_ase_knows_the_format():
    from ase.io.formats import filetype
    from ase.io.formats import ioformats as known

    (found,) = entry_points(group="ase.ioformats", name="mlelec-h5")
    assert found.load() is ioformats.mlelec_h5
    assert known["mlelec-h5"].can_read and known["mlelec-h5"].can_write
    assert filetype("train.mlelec.h5", read=False) == "mlelec-h5"


def test_both_generations_of_ase_find_the_same_functions():
    implementation = import_module(ioformats.IMPLEMENTATION)
    assert ioformats.read_mlelec_h5 is implementation.read_mlelec_h5
    assert ioformats.write_mlelec_h5 is implementation.write_mlelec_h5
    assert not hasattr(ioformats, "read_something_else")


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=lambda names: " ".join(names) or "all")
def test_help_imports_no_torch(arguments):
    code = (
        "import sys\nfrom ase_mlelec_entry_points.cli.main import main\n"
        f"try:\n    main({[*arguments, '--help']!r})\n"
        "finally:\n    print('torch imported:', 'torch' in sys.modules)"
    )
    result = run_python("-W", "error", "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(" ".join(["usage: mlelec", *arguments]))
    assert result.stdout.endswith("torch imported: False\n")
    if not arguments:
        assert all(f"\n    {name} " in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_complete(name):
    command = import_module(f"ase_mlelec_entry_points.cli.{name}")
    assert command.HELP and callable(command.add_arguments) and callable(command.run)


def test_console_script():
    (script,) = entry_points(group="console_scripts", name="mlelec")
    assert script.load() is main


def test_mistakes_are_told_in_one_line(capsys, monkeypatch):
    monkeypatch.delenv("MLELEC_DEBUG", raising=False)
    assert main(["info", "no-such-model"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mlelec: error: ") and captured.err.count("\n") == 1
    assert "no-such-model" in captured.err


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("MLELEC_DEBUG", "1")
    with pytest.raises(Exception, match="no-such-model"):
        main(["info", "no-such-model"])


def test_defects_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("ase_mlelec_entry_points.cli.models.run", lambda arguments: {}["defect"])
    with pytest.raises(KeyError, match="defect"):
        main(["models"])


@pytest.mark.parametrize("argv", [[], ["trian"], ["info"], ["models", "--wrong"]], ids=" ".join)
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: mlelec" in capsys.readouterr().err


def test_models_and_info(capsys):
    assert main(["models", "--names"]) == 0
    names = capsys.readouterr().out.split()
    assert names == ase_mlelec.list_models()
    assert "si" in names
    assert main(["models"]) == 0
    assert "si: species Si;" in capsys.readouterr().out
    assert main(["info", "si"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "species: Si" in lines and not [line for line in lines if line.endswith(": ")]


def test_errors_of_an_unfinished_model(tmp_path):
    """A training that was interrupted is named beside the errors of its model."""
    model = ase_mlelec.load_model("si")
    model.metadata = model.metadata | {"unfinished": {"stage": "energy", "steps": 77, "of": 300}}
    model.save(tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match=r"x.safetensors: its training has not ended \(energy: 77 steps of 300\)"):
        warn_unfinished([str(tmp_path / "x.safetensors"), "si"])
