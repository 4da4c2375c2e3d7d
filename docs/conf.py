"""Sphinx configuration: `pip install ".[docs]" && sphinx-build -W -n -q docs docs/_build`."""

import os

from numpy.typing import ArrayLike, NDArray
from sphinx.util.typing import stringify_annotation

import ase_mlelec

project = "ase-mlelec"
author = "The ase-mlelec developers"
copyright = f"2026, {author}"
version = release = ase_mlelec.__version__

extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build", "modules/modules.rst"]
html_theme = "furo"
html_title = f"ase-mlelec {release}"
html_static_path = ["static"]
html_css_files = ["wide.css"]

# A page in modules/ for every package, made anew in every build: no list to keep when modules move.
apidoc_modules = [
    {
        "path": "../ase_mlelec",
        "destination": "modules",
        "exclude_patterns": ["../ase_mlelec/train/config/*", "../ase_mlelec/active/config.py"],  # pages of settings
        "separate_modules": False,
        "module_first": True,
    }
]
# the pages of packages take their options from nowhere else; no names that are imported from elsewhere
os.environ["SPHINX_APIDOC_OPTIONS"] = "members,show-inheritance,ignore-module-all"
autodoc_mock_imports = ["torch_sim"]  # an optional program of others, whose class ours inherits
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "cKDTree"}
autodoc_inherit_docstrings = False  # those of torch are not in its markup
autodoc_typehints = "signature"
autosummary_generate = False  # the tables link to the pages of the modules
python_maximum_signature_line_length = 88  # longer ones: a line for every parameter
numpydoc_show_class_members = False  # autodoc lists them
suppress_warnings = ["ref.python"]  # numpydoc links an attribute by its bare name, which a module may have as well

# Names of other packages, and of attributes in tables: the build reads no inventory from the network.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(ase|h5py|matplotlib|numpy|np|npt|scipy|sparse|torch|torch_sim|tqdm|vesin|pydantic|annotated_types)\b.*",
    ),
    (r"py:.*", r"(argparse|collections|contextlib|enum|io|numba|os|pathlib|types|typing|xml)\b.*"),
    (
        r"py:.*",
        r"(ArrayLike|NDArray|Tensor|Path|PathLike|Axes|Figure|Atoms|BandStructure|Dynamics|MolecularDynamics|Any|Callable|Iterable|Iterator|NoneType)",
    ),
    (r"py:(class|obj)", r".*\b_\w+"),
    (r"py:class", r"ase_mlelec\.(train|active)\.config\..*"),  # docs/settings.rst describes them
    (r"py:class", r"ase_mlelec\..*\.(Options|Item|Result)"),  # type variables
    (r"py:obj", r"\w+"),
    (r"py:class", r"dict\[str"),  # half of a type of two parts, which numpydoc splits at the comma
]


def setup(app):
    """Signatures say ArrayLike and NDArray and not what NumPy means by them, which takes three lines."""
    names = {"ArrayLike": ArrayLike, "NDArray": NDArray}
    meanings = {stringify_annotation(kind, "smart"): name for name, kind in names.items()}

    def shorten(app, what, name, thing, options, signature, returned):
        for meaning, name in meanings.items():
            signature, returned = (part and part.replace(meaning, name) for part in (signature, returned))
        return signature, returned

    app.connect("autodoc-process-signature", shorten)
