"""Sphinx configuration: `pip install ".[docs]" && sphinx-build docs docs/_build`."""

import ase_mlelec

project = "ase-mlelec"
author = "The ase-mlelec developers"
copyright = f"2026, {author}"
version = release = ase_mlelec.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode"]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
exclude_patterns = ["_build"]
html_theme = "alabaster"
