"""From the names that pseudopotentials and Quantum ESPRESSO give to functionals to ours, by what the names mean.

A name is a short one, such as PBE, or says what each of four terms is: exchange and correlation of the uniform gas,
and the gradient corrections of both. Terms are words in any order, apart by blanks, "-" or "+", or their numbers.

References: Quantum ESPRESSO, Modules/funct.f90, for words and numbers; libxc's list of functionals for its numbers.
"""

import re

TERMS = {"lda_pz": (1, 1, 0, 0), "lda_pw": (1, 4, 0, 0), "pbe": (1, 4, 3, 4), "pbesol": (1, 4, 10, 8)}
SHORT = dict.fromkeys(("PZ", "LDA", "CA", "LDA_PZ"), "lda_pz") | dict.fromkeys(("PW", "LDA_PW"), "lda_pw")
SHORT |= {"PBE": "pbe", "PBESOL": "pbesol"}
# words for each of the terms, and for none or two of them
_OF_TERMS = (
    {"NOX": 0, "SLA": 1},
    {"NOC": 0, "PZ": 1, "PW": 4},
    {"NOGX": 0, "PBX": 3, "PSX": 10},
    {"NOGC": 0, "PBC": 4, "PSC": 8},
)
WORDS = {word: {place: number} for place, row in enumerate(_OF_TERMS) for word, number in row.items()}
WORDS |= {"PBE": {2: 3, 3: 4}, "NONE": {}, "NONLC": {}}


# numbers of libxc, which Quantum ESPRESSO marks by an L: what one says of our terms; of gradient-corrected functionals
# libxc has exchange and correlation as a whole
LIBXC = {1: {0: 1}, 9: {1: 1}, 12: {1: 4}, 101: {0: 1, 2: 3}, 116: {0: 1, 2: 10}, 130: {1: 4, 3: 4}, 133: {1: 4, 3: 8}}


def functional_of(name: str) -> str | None:
    """Our name of a functional (see ase_mlelec.physics.xc), or None for one that is none of ours.

    Parameters
    ----------
    name : str
        e.g. "PBE", "SLA PW PBX PBC", "sla+pw+pbe+pbe", "1 4 3 4" or "XC-001I-004I-003I-004I".
    """
    name = name.upper().strip().strip("'\"").strip()
    named = re.sub(r"\([\d\s]*\)", " ", name).strip()  # numbers behind the name, in brackets
    if named in SHORT:
        return SHORT[named]
    words = re.split(r"[\s+,/-]+", (named or name).strip("() "))
    terms = _numbers(words) if words[0][:1].isdigit() or words[0] == "XC" else _words(words)
    return next((ours for ours, theirs in TERMS.items() if theirs == terms), None)


def _words(words):
    """Terms of a name of words; None where one is not known or two disagree."""
    terms = {}
    for word in words:
        if word not in WORDS or any(terms.get(place, number) != number for place, number in WORDS[word].items()):
            return None
        terms |= WORDS[word]
    return tuple(terms.get(place, 0) for place in range(4))


def _numbers(words):
    """Terms of 1 4 3 4, 1434 and XC-001I-004I-003I-004I-000I-000I; the last numbers are of what none of ours has."""
    words = words[words[0] == "XC" :]
    if any(word.endswith("L") for word in words):
        return _libxc(words)
    if len(words) == 1 and len(words[0]) == 4:
        words = list(words[0])
    if not all(re.fullmatch(r"\d{1,3}I?", word, re.ASCII) for word in words):
        return None
    numbers = [int(word.rstrip("I")) for word in words] + [0] * 4
    first = [{14: 3}.get(numbers[2], numbers[2]), {9: 4}.get(numbers[3], numbers[3])]  # PBE by its older numbers
    return None if any(numbers[4:]) else (*numbers[:2], *first)


def _libxc(words):
    """Terms of numbers some of which are libxc's: XC-000I-000I-101L-130L-000I-000I; None where two disagree."""
    terms = {}
    for place, word in enumerate(words):
        number = int(word[:-1]) if re.fullmatch(r"\d{1,3}[IL]", word, re.ASCII) else None
        meant = LIBXC.get(number) if word.endswith("L") and number else {place: number} if number else {}
        if number is None or meant is None or terms.keys() & meant.keys():
            return None
        terms |= meant
    return tuple(terms.get(place, 0) for place in range(4)) if max(terms, default=0) < 4 else None
