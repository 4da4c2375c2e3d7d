"""Settings of VASP with which its numbers are no labels, or labels of something else; from any of its files.

References: VASP's wiki, "ICHARG", "ISIF", "EFIELD", "EFIELD_PEAD", "I_CONSTRAINED_M" and "IMAGES".
"""

from collections.abc import Mapping

from ase_mlelec.io.text import float_or

FIELDS = ("EFIELD", "EFIELD_PEAD")
CHAINS = ("IMAGES", "ICHAIN")  # of elastic bands; ICHAIN is that of the tools for transition states
NAMES = (
    "ICHARG",
    "ISIF",
    "I_CONSTRAINED_M",
    *FIELDS,
    *CHAINS,
)  # what is looked for in files without a table of settings
NO_LABELS = "so that energies, forces and stress are no labels"
SUPERPOSED = 12  # ICHARG, of the sum of the densities of atoms


def fixed_density(settings: Mapping[str, str]) -> str:
    """Why a run has spectra alone: its density was not made self-consistent (ICHARG of 10 or more); "" for others."""
    kind = float_or(settings.get("ICHARG"), 0.0)
    if kind < 10:
        return ""
    first = "was read" if kind != SUPERPOSED else "began, as the sum of those of atoms"
    return f"its density is kept as it {first} (ICHARG = {kind:g}), {NO_LABELS}"


def is_superposed(settings: Mapping[str, str]) -> bool:
    """Whether the density is the sum of those of atoms, so that spectra are no labels either."""
    return float_or(settings.get("ICHARG"), 0.0) == SUPERPOSED


def no_labels(settings: Mapping[str, str]) -> dict[str, str]:
    """Names of labels that are not to be read, ``forces`` and ``stress``, with the reason."""
    found = {}
    if float_or(settings.get("ISIF"), 2.0) == 1:
        found["stress"] = "the stress is not read, as with ISIF = 1 its trace alone is right"
    if any(float_or(settings.get(name), 0.0) > 0 for name in CHAINS):
        found["forces"] = (
            "the forces are not read, as those of an image of an elastic band (IMAGES) may hold the springs and lack what "
            "is along the band; calculate the images again, each by itself"
        )
    return found


def in_field(settings: Mapping[str, str]) -> bool:
    """Whether there is an electric field."""
    return any(float_or(word, 0.0) for name in FIELDS for word in settings.get(name, "").split())


def notes(settings: Mapping[str, str]) -> list[str]:
    """What else is to be told of the labels."""
    if not float_or(settings.get("I_CONSTRAINED_M"), 0.0):
        return []
    return [
        "its magnetic moments are constrained (I_CONSTRAINED_M), and the energy holds the penalty E_p, which is told in "
        "OSZICAR; make sure that it is small, or leave the run out"
    ]
