"""The command line ``mlelec``: main.py dispatches, every other module is one subcommand.

A subcommand module has ``HELP`` (str), ``add_arguments(parser)`` and ``run(arguments)``.  Only the one that is called
is imported.
"""
