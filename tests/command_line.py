"""Calls of ``mlelec`` as users make them."""

from ase_mlelec_entry_points.cli.main import main


def call(*arguments):
    """A command that succeeds."""
    assert main([str(argument) for argument in arguments]) == 0


def fails(capsys, *arguments):
    """The one line of the error of a command."""
    assert main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("mlelec: error: ") and captured.err.count("\n") == 1
    return captured.err
