"""Hashes of the shipped models, which the tables carry that were measured with them.

    python benchmarks/hashes.py         # which tables are of the present models, and the commands of those that are not

A table has a line ``Models: `si` 0123456789ab, `ice` ba9876543210.``  The digits begin one of three hashes, whichever has
all that the numbers of the table depend on, and no more: of the weights of descriptors and heads (accuracy, time), of all
that decides results (``calc.parameters["weights"]``), or of the file (error bars).  Where a model has changed since, its
entry says ``(former)``, until the table is measured again.  A heading such as "## `si` (0123456789ab)" does as well.
"""

import hashlib
import re
from pathlib import Path

from ase_mlelec.bundle import load_model
from ase_mlelec.calculators.parameters import fingerprint
from ase_mlelec.shipped import PRETRAINED, list_models

HERE = Path(__file__).resolve().parent
DIGITS = 12
ENTRY = re.compile(r"`(\w+)` \(?([0-9a-f]{12,})\)?( \(former\))?")
COMMAND = re.compile(r"(?:Regenerated|Written|measured) by `([^`]+)`")


def weights_hash(model):
    """Hash of the arrays of descriptors and heads: all that results depend on within the training data."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.split(".")[0] in ("descriptor", "electronic", "pairs", "heads", "hot"):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def hashes_of(name):
    """The three hashes of a shipped model: of weights, of all that decides results, and of the file."""
    model = load_model(name)
    file = hashlib.sha256((PRETRAINED / f"{name}.safetensors").read_bytes()).hexdigest()
    return weights_hash(model), fingerprint(model), file


def models_line(*names):
    """The line of a table whose numbers depend on weights of descriptors and heads."""
    return f"Models: {', '.join(f'`{name}` {weights_hash(load_model(name))[:DIGITS]}' for name in names)}."


def entries(text):
    """(name, digits, whether it is marked as former) of the models in the lines of a table with Models, and in headings."""
    lines = [line for line in text.splitlines() if line.startswith(("Models:", "## `"))]
    return [(name, digits, bool(former)) for line in lines for name, digits, former in ENTRY.findall(line)]


def command_of(text):
    found = COMMAND.search(text)
    return " ".join(found[1].split()) if found else "the command in its first lines"


def complaints(path, known):
    """What is wrong with the models of a table, list of str; ``known`` are hashes by model."""
    text, found = path.read_text(encoding="utf-8"), []
    for name, digits, former in entries(text):
        current = any(each.startswith(digits) for each in known.get(name, ()))
        if not current and not former:
            found.append(
                f"{path.name} was measured with another model {name} ({digits}) than the shipped one "
                f"({known[name][0][:DIGITS]}): run `{command_of(text)}` again, or write (former) behind the digits"
                if name in known
                else f"{path.name} names the model {name}, which is not shipped; correct the line"
            )
        if current and former:
            found.append(f"{path.name} calls the model {name} ({digits}) a former one, but it is the present one")
    return found


def main():
    known = {name: hashes_of(name) for name in list_models()}
    for path in sorted(HERE.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found = entries(text)
        state = "without a shipped model" if not found else "of the present models"
        if any(former for *_, former in found):
            state = f"of former models; again: {command_of(text)}"
        print(f"{path.name}: {'; '.join(complaints(path, known)) or state}")


if __name__ == "__main__":
    main()
