"""What other programs discover: ASE plugins and file formats, and the command line ``mlelec``.

Installed as the package ``ase_mlelec_entry_points``. Other programs import these modules whether or not they are going
to use ase_mlelec, so nothing here imports torch until it is really needed.
"""
