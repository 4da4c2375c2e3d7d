"""The page "Your data -> model -> molecular dynamics": its scripts and commands run, with few small cells."""

import re
import shlex
from pathlib import Path

import pytest

from ase_mlelec_entry_points.cli.main import main

PAGE = Path(__file__).parents[1] / "docs" / "your_data.rst"


def blocks(language):
    """Code blocks of one language."""
    found = re.findall(rf"\.\. code-block:: {language}\n\n((?:    .*\n|\n)+)", PAGE.read_text(encoding="utf-8"))
    return [re.sub("^    ", "", block, flags=re.M) for block in found]


def smaller(script, changes):
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    return script


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands():
    """The words of each command with its output on the page."""
    text = PAGE.read_text(encoding="utf-8")
    return {words[0]: words for words in map(shlex.split, re.findall(r"^    \$ mlelec (.*)$", text, re.M))}


def test_init_writes_what_the_page_shows(folder, capsys):
    exec(blocks("python")[0], {})
    assert main(commands()["init"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = PAGE.read_text(encoding="utf-8")
    for title in ("data ", "species ", "distances ", "energy ", "forces ", "stress "):
        (line,) = [line for line in lines if line.startswith(title)]
        assert f"    {line}\n" in shown
    assert Path("copper.toml").read_text(encoding="utf-8").split() == blocks("toml")[0].split()


def test_from_data_to_molecular_dynamics(folder, capsys):
    data, dynamics = blocks("python")
    exec(smaller(data, {"range(40)": "range(8)", "(2, 2, 1)": "(1, 1, 1)", ":32]": ":6]", "32:]": "6:]"}), {})
    assert [*commands()] == ["init", "train", "test"]
    for words in commands().values():
        assert main(words) == 0
    assert "meV/Å" in capsys.readouterr().out
    assert Path("parity.png").stat().st_size > 5_000
    exec(smaller(dynamics, {"(2, 2, 2)": "(1, 1, 1)", "run(25)": "run(1)"}), {})
    lines = capsys.readouterr().out.splitlines()
    pattern = r" *\d+ fs: -?[\d.]+ ± [\d.]+ eV, forces ± \d+ meV/Å at most, leverage [\d.]+"
    assert len(lines) == 4 and all(re.fullmatch(pattern, line) for line in lines)
    shown = re.findall(rf"^    ({pattern})$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(shown) == 4
