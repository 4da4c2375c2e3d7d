"""Functions run by several processes that share their work, as torchrun starts them."""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import ase_mlelec


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def together(function, *arguments, n=2):
    """Results of ``function(*arguments)`` in ``n`` processes inside ``processes.together``, list by rank."""
    module, port, here = sys.modules[function.__module__], free_port(), Path(__file__).parent
    folders = [str(Path(ase_mlelec.__file__).parent.parent), str(here), str(Path(module.__file__).parent)]
    common = os.environ | {
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(n),
        "OMP_NUM_THREADS": "1",
    }
    given = pickle.dumps((Path(module.__file__).stem, function.__name__, arguments))
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=common | {"RANK": str(k), "LOCAL_RANK": str(k)},
        )
        for k in range(n)
    ]
    for process in running:  # all of them, before one is waited for
        process.stdin.write(given)
        process.stdin.close()
    found = []
    for process in running:
        with process.stdout:
            output = process.stdout.read()
        assert process.wait() == 0, f"process {len(found)} failed"
        found.append(pickle.loads(output))
    return found


if __name__ == "__main__":
    import importlib

    import torch

    from ase_mlelec import processes

    torch.set_num_threads(1)
    out, sys.stdout = sys.stdout.buffer, sys.stderr
    name, function, arguments = pickle.load(sys.stdin.buffer)
    call = getattr(importlib.import_module(name), function)
    with processes.together():
        result = call(*arguments)
    out.write(pickle.dumps(result))
    out.flush()
