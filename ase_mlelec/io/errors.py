"""Exceptions that several readers share."""


class EspressoError(ValueError):
    """A Quantum ESPRESSO file cannot be used; the message names the file, the cause and the remedy."""
