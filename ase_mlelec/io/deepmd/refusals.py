"""Refusal of deepmd-kit models that cannot be imported: by the kind of model first, then by its features."""

from os import PathLike

from ase.calculators.calculator import CalculatorSetupError
from ase.data import atomic_numbers

from ase_mlelec.checks import printable
from ase_mlelec.io.deepmd.stored import part
from ase_mlelec.io.elements import element_of
from ase_mlelec.nets import ACTIVATIONS
from ase_mlelec.quantities import QUANTITIES

SUPPORTED = (
    "supported are se_e2_a models of energy, DOS, dipole and polarizability, without parameters of frames or atoms"
)
OTHER_NAMES = {"none": "linear", "gelu_tf": "gelu"}  # names of activations


def activation(name: str):
    """Our name of an activation function; None where we have no such."""
    name = str(name).lower()
    return next((found for found in (OTHER_NAMES.get(name, name),) if found in ACTIVATIONS), None)


def elements(type_map):
    """Chemical symbols of the types of a model; None for names that are not a symbol, in whatever case."""
    symbols = []
    for name in type_map:
        try:
            symbol = element_of(name)
        except ValueError:
            return None
        symbols.append(symbol)
        if symbol.lower() != str(name).lower() or symbol not in atomic_numbers:
            return None
    return symbols if len(set(symbols)) == len(symbols) else None


def refuse_unsupported(path: str | PathLike, tree) -> None:
    """Raise CalculatorSetupError, naming everything that is in the way, unless the model can be imported.

    Parameters
    ----------
    tree : the dict of the whole file
    """
    model = tree.get("model")
    if not isinstance(model, dict):
        raise ValueError("no 'model' in it")
    for reasons in (_kind, _needs):
        found = [reason for reason, present in reasons(tree, model).items() if present]
        if found:
            raise CalculatorSetupError(f"{path}: {printable(', '.join(found))} cannot be imported; {SUPPORTED}")


def _kind(tree, model):
    kind, script = str(model.get("type"))[:40], tree.get("model_def_script")
    modifier = script.get("modifier") if isinstance(script, dict) else None
    if "spin" in kind or model.get("spin"):
        return {"spin": True}
    if "model_dict" in model:
        return {"several models in one file (freeze one of them with dp freeze --head)": True}
    if kind != "standard":
        return {f"model type {kind}": True}
    descriptor, fitting = part(model, "descriptor", dict), part(model, "fitting", dict)
    names = [part(each, "type", str)[:40] for each in (descriptor, fitting)]
    return {
        f"the modifier {modifier.get('type') if isinstance(modifier, dict) else modifier} (long-range electrostatics)": bool(
            modifier
        ),
        f"descriptor {names[0]}": names[0] != "se_e2_a",
        f"fitting {names[1]}": names[1] not in {row.deepmd for row in QUANTITIES.values() if row.deepmd},
        "spin": bool(descriptor.get("spin") or fitting.get("spin")),
    }


def _needs(tree, model):
    descriptor, fitting = model["descriptor"], model["fitting"]
    functions = {str(each.get("activation_function"))[:40] for each in (descriptor, fitting)}
    return {
        **{f"activation function {name}": not activation(name) for name in sorted(functions)},
        "frame or atomic parameters": bool(
            fitting.get("numb_fparam") or fitting.get("numb_aparam") or fitting.get("dim_case_embd")
        ),
        "types that are no chemical symbols": elements(model.get("type_map") or []) is None,
        "mixed types": bool(fitting.get("mixed_types")),
        "an exponential switch": bool((descriptor.get("env_mat") or {}).get("use_exp_switch")),
        "tot_ener_zero": bool(fitting.get("tot_ener_zero")),
    }
