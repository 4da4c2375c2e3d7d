"""What a training says about its error bars."""

from collections.abc import Mapping
from typing import Any


def rounded(found: Mapping[str, Any]) -> dict[str, Any]:
    """Report of a quantity with its numbers rounded, for the metadata of a model."""
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in found.items()}


def told(report: Mapping[str, Mapping[str, Any]]) -> str:
    """One line about a report, for the log of a training."""
    parts: dict[str, list[str]] = {}  # by the structures that the errors are of
    for label, found in report.items():
        share = f"{label} {100 * found['within_one']:.0f} and {100 * found['within_two']:.0f} % of {found['errors']}"
        parts.setdefault(str(found["calibrated_on"]), []).append(share)
    words = "; ".join(f"{', '.join(shares)} ({where})" for where, shares in parts.items())
    return f"Error bars, errors within one and two: {words}" if report else "No error bars"
