"""Every key of a configuration with values that make no sense: one line with file, section, key and what is needed."""

import time

import pytest

from ase_mlelec.train import config as module
from ase_mlelec.train.config import read_config
from ase_mlelec.train.config.schema import settings

# section -> lines of a configuration that is right, in which the values are replaced
HEADS = {
    "energy": "[energy]\n",
    "dos": "[dos]\n",
    "dipole": '[dipole]\ncenters = ["O"]\n',
    "polarizability": '[polarizability]\ncenters = ["O"]\n',
    "ldos": "[ldos]\n",
    "hamiltonian": "[hamiltonian]\n",
}
BASE = {"data": '[data]\nfiles = ["a.h5"]\n', "output": '[output]\nmodel = "m.safetensors"\n'}
NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "-1e300",
    "1e300",
    "1" + "0" * 400,
    "true",
    '"1"',
    "[]",
    "{}",
    "1979-05-27",
    "[[1]]",
]
TEXTS = ["1", "true", "[]", "nan", '["a", 1]', '[""]', '"\\u0000"', '["a\\u0007b"]', '"' + "a" * 5000 + '"', "{a = 1}"]


def keys():
    """(section, key, node of the schema) of all keys."""
    return [(section, key, node) for section, table in settings().items() for key, node in table["properties"].items()]


def entries(node):
    """The node of a value, or of the entries of an array."""
    return node.get("items") or node.get("prefixItems", [node])[0]


def is_number(node):
    return entries(node)["type"] in ("integer", "number")


def content(section, key, value):
    """A configuration that is right but for this value."""
    parts = dict(BASE)
    head = section if section in HEADS else {"bispectrum": "ldos"}.get(section, "energy")
    parts[head] = HEADS[head]
    if section == "electronic":
        parts["dos"] = HEADS["dos"]
    line = f"{key} = {value}\n"
    if not section:
        return line + "".join(parts.values())
    parts[section] = (
        "".join(
            text
            for text in parts.get(section, f"[{section}]\n").splitlines(keepends=True)
            if not text.startswith(f"{key} =")
        )
        + line
    )
    return "".join(parts.values())


def test_every_number_has_a_range():
    for section, key, node in keys():
        if is_number(node):
            names = set(entries(node))
            assert names & {"minimum", "exclusiveMinimum"} and names & {"maximum", "exclusiveMaximum"}, (section, key)
        if node["type"] == "array":
            assert "maxItems" in node, (section, key)


def test_every_setting_is_described():
    for section, table in settings().items():
        assert table["description"], section
        for key, node in table["properties"].items():
            assert node.get("description", "").endswith("."), (section, key)


def sensible(node, value):
    """Values of the lists above that are right for some keys."""
    if value == "[]":
        return node["type"] == "array" and node.get("minItems", 0) == 0
    if value == "{a = 1}":  # any name may be that of a kind
        return node.get("additionalProperties", {}).get("type") == "number"
    return value == "true" and node["type"] == "boolean"


@pytest.mark.parametrize("section, key, node", keys(), ids=lambda value: value if isinstance(value, str) else "")
def test_values_that_make_no_sense(section, key, node, tmp_path):
    path, start = tmp_path / "c.toml", time.process_time()
    name = f"{section}.{key}" if section else key
    values = NUMBERS if is_number(node) else TEXTS
    if node["type"] == "array" and is_number(node):
        n = len(node.get("prefixItems", [None]))
        values = values + [f"[{', '.join([value] * n)}]" for value in NUMBERS] + ["[" + "1, " * 200 + "1]"]
    for value in values:
        if sensible(node, value):
            continue
        path.write_text(content(section, key, value))
        with pytest.raises(ValueError) as caught:
            read_config(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 600, (value, message)
        assert name in message or (section and section in message and "weights" in message), (value, message)
        assert "need" in message or "name" in message or "give" in message, (value, message)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "section, key, value, needed",
    [
        (
            "energy",
            "widths",
            "[1000000000000]",
            r"energy.widths\[0\]: got 1000000000000, need at least 1 and at most 4096",
        ),
        (
            "energy",
            "learning_rate",
            "[1e5, 1e-3]",
            r"energy.learning_rate\[0\]: got 100000, need more than 0 and at most 1000",
        ),
        ("energy", "ridge", "nan", "energy.ridge: got nan, need a finite number"),
        ("energy", "strong_force", "-1.0", "energy.strong_force: got -1, need more than 0"),
        ("descriptor", "cutoff", "1e6", "descriptor.cutoff: got 1000000, need more than 0 and at most 30"),
        ("descriptor", "n_axis", "30", "descriptor.n_axis: got 30, need at most the last of the widths, 24"),
        ("descriptor", "smooth", "6.0", "descriptor.smooth: got 6 Å, need less than the cutoff, 6"),
        ("descriptor", "n_products", "25", "descriptor.n_products: got 25, need at most the last of the widths"),
        ("power_spectrum", "n_radial", "13", "power_spectrum.n_radial: got 13, need at most n_pair, 12"),
        ("power_spectrum", "inner", "6.5", "power_spectrum.inner: got 6.5 Å, need less than the cutoff"),
        ("bispectrum", "rmin0", "5.0", "bispectrum.rmin0: got 5 Å, need less than the cutoff"),
        ("hamiltonian", "cutoff", "8.0", "hamiltonian.cutoff: got 8, need more than 11"),
        ("hamiltonian", "third", "2.0", "hamiltonian.third: got 2 Å, need 0, or 3.5 to the cutoff"),
        ("data", "files", '[""]', r"data.files\[0\]: got '', need a text that is not empty"),
        ("data", "train", "[]", "data.train: got an empty list"),
        ("", "seed", "-3", "seed: got -3, need at least 0"),
        ("", "committee", "1000000", "committee: got 1000000, need at least 1 and at most 1000"),
    ],
)
def test_what_is_needed_is_told(section, key, value, needed, tmp_path):
    (tmp_path / "c.toml").write_text(content(section, key, value))
    with pytest.raises(ValueError, match=rf"c.toml: {needed}"):
        read_config(tmp_path / "c.toml")


DAMAGED = {
    "not closed": b"[data",
    "twice": b"[data]\n[data]\n",
    "latin 1": "# Å\n".encode("latin-1"),
    "utf 16": "[data]".encode("utf-16"),
    "zeros": bytes(1000),
    "nested lists": b"a = " + b"[" * 100_000,
    "nested tables": b"a = " + b"{a = " * 20_000,
    "dots": b"a" + b".a" * 40_000 + b" = 1\n",
    "dots in a header": b"[a" + b".a" * 40_000 + b"]\n",
    "digits": b"a = " + b"9" * 90_000,
    "text": b"a = '" + b"a" * 90_000,
    "huge": b"# \n" * 10**6,
    "empty": b"",
    "float": b"seed = 1e99999999\n",
    "key of another kind": b"'' = 1\n",
    "long key": b"k" * 90_000 + b" = 1\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files(damage, tmp_path):
    path, start = tmp_path / "c.toml", time.process_time()
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(ValueError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 600
    assert time.process_time() - start < 1


def test_what_is_no_file(tmp_path):
    for path, message in ((tmp_path, "not a file"), (tmp_path / "none.toml", "No such file")):
        with pytest.raises(ValueError, match=f"{path}: {message}"):
            read_config(path)


def test_keys_that_a_file_has(tmp_path):
    """What is asked for is told from what is a default, even where both are the same."""
    (tmp_path / "c.toml").write_text(content("energy", "core", "true"))
    config = read_config(tmp_path / "c.toml")
    assert config.energy.given == ("core",) and config.energy == module.EnergyConfig()
    (tmp_path / "c.toml").write_text(content("energy", "given", '["virial"]'))
    with pytest.raises(ValueError, match="unknown key 'energy.given'"):
        read_config(tmp_path / "c.toml")
