"""Error measures of quantities, rows of the table in ase_mlelec.quantities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def mean_absolute(error: Any, label: Any) -> float:
    """Mean absolute error; ``error`` and ``label`` are arrays over all atoms or structures with the label."""
    return float(abs(error).mean())


def root_mean_square(error: Any, label: Any) -> float:
    """Root mean square error, as ``mean_absolute``."""
    return float((error**2).mean()) ** 0.5


def relative_to_spread(error: Any, label: Any) -> float | None:
    """Root mean square error divided by the spread of the labels, which is the root of their variance over rows.

    It is 1 for a model that predicts the mean of all rows, and None where labels are equal to 1e-6 of their size.
    """
    spread, size = float(label.var(axis=0).mean()) ** 0.5, root_mean_square(label, label)
    return root_mean_square(error, label) / spread if spread > 1e-6 * size else None


@dataclass(frozen=True)
class Measure:
    """Error measure of a model, which ``mlelec test`` prints and the metadata of a model keep.

    Parameters
    ----------
    key : str
        Name of the measure in results, with its unit.
    title, unit : str
        Title and unit in tables.
    label : str
        Label with which predictions are compared; "" where a separate function computes the error.
    statistic : callable(errors, labels) -> float or None
    per : str
        "atom" or "volume" (Å^3): divisor of the errors of a structure, if any.
    scale : float or callable(metadata of the model) -> float or None
        Factor from the unit of the label to ``unit``; None for models without such an error.
    """

    key: str
    title: str
    unit: str
    label: str = ""
    statistic: Callable[[Any, Any], float | None] = root_mean_square
    per: str = ""
    scale: float | Callable[[dict], float | None] = 1.0
