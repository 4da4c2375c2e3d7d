"""Files that appear whole or not at all."""
import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path):
    """Path of a temporary file with the same suffix that takes the place of ``path`` when the block ends without error.

    An interrupted program leaves the old file as it was, and a reader never sees half of the new one.
    """
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
