"""What all commands share: helps, names of options, and files that are looked at before the work is done."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ase_mlelec_entry_points.cli.main import COMMANDS, build_parser, main

CHECKOUT = Path(__file__).parents[2]
MANUAL = [CHECKOUT / "README.rst", *sorted(CHECKOUT.glob("docs/*.rst")), *sorted(CHECKOUT.glob("examples/*.toml"))]
SHARED = {"--out": {"-o"}, "--plot": set(), "--device": set(), "--model": set(), "--key": set()}
FORMER = {
    "bands x_hr.dat --json b.json": "b.json",
    "dos si a.xyz --csv d.csv": "d.csv",
    "ir run.h5 --csv i.csv": "i.csv",
    "protect si a.xyz --output m.safetensors": "m.safetensors",
    "test si a.xyz --json e.json": "e.json",
}


def parsed(line):
    words = shlex.split(line)
    return build_parser(words[0]).parse_args(words)


def options(name):
    """Option -> argparse's action, of a command."""
    parser = build_parser(name)
    (commands,) = (action.choices for action in parser._actions if getattr(action, "choices", None))
    return {option: action for action in commands[name]._actions for option in action.option_strings}


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_is_a_screen(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([name, "--help"] if name else ["--help"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= (34 if name is None else 45)
    examples = [line for line in text.splitlines() if line.startswith("Example: ")]
    assert len(examples) == (name is not None)


def test_what_is_beyond_the_arguments(capsys):
    """The usage is that of the command, which may have another order than the user thinks."""
    with pytest.raises(SystemExit):
        main(["bands", "graphene", "a.xyz"])
    text = capsys.readouterr().err
    assert "usage: mlelec bands" in text and "got a.xyz beyond its arguments; leave it out, or see mlelec bands" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_right(name):
    example = import_module(f"ase_mlelec_entry_points.cli.{name}").EXAMPLE
    assert example.startswith(f"mlelec {name}")
    parsed(example.removeprefix("mlelec "))


def test_options_mean_the_same_everywhere():
    found = {option: set() for option in SHARED}
    for name in COMMANDS:
        known = options(name)
        for option, short in SHARED.items():
            if option in known:
                assert short <= set(known[option].option_strings)
                found[option].add((known[option].type, known[option].nargs))
        for option in ("--csv", "--output"):
            assert option not in known or known[option].help == "==SUPPRESS=="
    assert {option: len(kinds) for option, kinds in found.items()} == dict.fromkeys(SHARED, 1) | {
        "--out": 2
    }  # a folder


@pytest.mark.skipif(not (CHECKOUT / "setup.cfg").exists(), reason="reads the files of the checkout")
def test_commands_of_the_manual_are_right():
    pattern = re.compile(rf"\bmlelec ((?:{'|'.join(COMMANDS)}) [^`#'\n]+)")
    found = [
        (path.name, match)
        for path in MANUAL
        for match in pattern.findall(path.read_text(encoding="utf-8"))
        if path.name not in ("changelog.rst", "settings.rst")
    ]
    assert len(found) > 8
    for _, line in found:
        parsed(line.split("   ")[0])  # a remark may follow


@pytest.mark.parametrize("line", FORMER)
def test_former_names_of_out(line):
    assert parsed(line).out == FORMER[line]


def fails(capsys, *arguments):
    """The one line of the error."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("mlelec: error: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "command", ["bands none_hr.dat", "dos none.safetensors none.xyz", "ir none.h5"], ids=lambda line: line.split()[0]
)
def test_pictures_fail_early(command, capsys, tmp_path):
    """Before the first file is read."""
    for name in ("b.xyz", "b", "b.png.gz"):
        text = fails(capsys, *command.split(), "--plot", tmp_path / name)
        assert f"--plot: got '{tmp_path / name}', need a name that ends in" in text and ".pdf" in text, text
    assert "there is no folder" in fails(capsys, *command.split(), "--plot", tmp_path / "none" / "b.png")
    assert "is a folder" in fails(capsys, *command.split(), "--plot", tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "bands none_hr.dat",
        "dos none.safetensors none.xyz",
        "ir none.h5",
        "predict none.safetensors none.xyz",
        "protect none.safetensors none.xyz",
        "test none.safetensors none.xyz",
        "convert none.xyz",
        "schema",
    ],
    ids=lambda line: line.split()[0],
)
def test_results_fail_early(command, capsys, tmp_path, monkeypatch):
    suffix = {"predict": ".extxyz", "protect": ".safetensors", "convert": ".h5"}.get(command.split()[0], ".x")
    assert "there is no folder" in fails(capsys, *command.split(), "--out", tmp_path / "none" / f"a{suffix}")
    assert "is a folder" in fails(capsys, *command.split(), "-o", tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "is not writable; choose another" in fails(capsys, *command.split(), "--out", tmp_path / f"a{suffix}")


def test_results_of_the_wrong_kind(capsys, tmp_path):
    for command, suffix in ("predict", ".extxyz"), ("protect", ".safetensors"):
        words = command, "none.safetensors", "none.xyz"
        assert f"need a name that ends in {suffix}" in fails(capsys, *words, "--out", tmp_path / "a.pdb")
        assert "got no --out; give the name" in fails(capsys, *words)
    same = tmp_path / "a.pdf"
    assert "for --out and for --plot" in fails(capsys, "bands", "none_hr.dat", "--out", same, "--plot", same)


@pytest.mark.parametrize(
    "command, suffix",
    [
        ("predict si {}", ".xyz"),
        ("predict si {}@0", ".extxyz"),
        ("pca si {}", ".h5"),
        ("bands {}", "_hr.dat"),
        ("ir {}", ".h5"),
        ("test si {}", ".json"),
    ],
)
def test_what_is_read_is_not_replaced(command, suffix, capsys, tmp_path):
    data = tmp_path / f"data{suffix}"
    data.write_text("labels")
    line = fails(capsys, *command.format(data).split(), "--out", tmp_path / "." / data.name)
    assert line.endswith("which is read; give the result another name\n") and data.read_text() == "labels"


@pytest.mark.parametrize("command, suffix", [("predict si", ".xyz"), ("convert", ".h5")])
def test_the_last_of_several_files_is_not_replaced(command, suffix, capsys, tmp_path):
    """Results had no option in former versions, and a pattern such as *.xyz names several files."""
    files = [tmp_path / f"{k}{suffix}" for k in "ab"]
    for file in files:
        file.write_text("labels")
    assert "exists already; give the result a name with --out" in fails(capsys, *command.split(), *files)
    assert files[1].read_text() == "labels"


def test_schema_into_a_file(capsys, tmp_path):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert main(["schema", "--out", str(tmp_path / "schema.json")]) == 0
    assert capsys.readouterr().out == "" and (tmp_path / "schema.json").read_text(encoding="utf-8") == printed
