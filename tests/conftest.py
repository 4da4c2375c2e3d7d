"""Lies in tests/ so that helper modules beside it (small_models) can be imported everywhere."""

import gc
import os
import signal

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is there; for the workers of pytest-xdist

import torch

# a job in the background of a shell inherits that Ctrl-C is ignored; tests of Ctrl-C need the usual handler
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # the models here are tiny; threads only get in each other's way

USUAL = 12  # damaged inputs of every kind, in the usual run of all tests


def pytest_addoption(parser):
    parser.addoption(
        "--fuzz",
        type=int,
        default=USUAL,
        metavar="N",
        help="damaged inputs of every kind in tests/fuzz; many print a table at the end",
    )


def pytest_collection_finish():
    """What the collected tests hold stays to the end: later passes over all objects leave it out."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val, argname):
    """Whole files as parameters make unreadable names of tests, and compressed ones other names in every process."""
    return argname if isinstance(val, str | bytes) and len(val) > 60 else None
