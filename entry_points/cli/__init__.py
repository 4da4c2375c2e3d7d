"""The command line ``mlelec``: main.py dispatches, every other module is one subcommand.

A subcommand module has ``HELP`` and ``EXAMPLE`` (str), ``add_arguments(parser)`` and ``run(arguments)``. Only the one
that is called is imported. options.py has the options that mean the same in all of them.
"""
