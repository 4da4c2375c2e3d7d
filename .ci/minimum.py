"""Prints the lower bounds of the requirements in setup.cfg as constraints of pip."""

import configparser
from pathlib import Path

BESIDE = ["pyparsing<3.2"]  # matplotlib's, whose oldest version uses names that later ones warn about

config = configparser.ConfigParser(interpolation=None)
config.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
print(*config["options"]["install_requires"].strip().replace(">=", "==").splitlines(), *BESIDE, sep="\n")
