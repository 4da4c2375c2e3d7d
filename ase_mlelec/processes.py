"""Several processes that share the work of one program, as ``torchrun`` starts them.

Every process runs the whole program and makes the same decisions; only the work inside ``together()`` is shared::

    # torchrun --nproc-per-node 2 script.py
    with together():
        energy = atoms.get_potential_energy()      # grids of MLDFTCalculator; evaluate(...); training

Each process takes every n-th piece of work, and sums over all pieces are exchanged, so that all processes have all
results. Files are written by the first process alone. Outside ``together()``, or without torchrun, nothing is shared.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Item = TypeVar("Item")

_shared = {"rank": 0, "world": 1}


def rank() -> int:
    """Number of this process among those that share the work, from 0."""
    return _shared["rank"]


def world() -> int:
    """How many processes share the work."""
    return _shared["world"]


@contextmanager
def together() -> Iterator[None]:
    """Context in which the processes that torchrun started share work; alone, nothing changes.

    They exchange tensors by gloo, and those on GPUs by nccl. Every process must do the same in the same order.
    """
    n = int(os.environ.get("WORLD_SIZE", "1"))
    if n < 2 or world() > 1:
        yield
        return
    import torch  # here: commands that write files need not load it

    own = not torch.distributed.is_initialized()
    if own:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    _shared.update(rank=torch.distributed.get_rank(), world=n)
    try:
        yield
        if own:  # nobody closes connections that another still reads from
            torch.distributed.all_reduce(torch.zeros(1))
    finally:
        _shared.update(rank=0, world=1)
        if own:
            torch.distributed.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Context in which nothing is shared, for work that is another piece in each process.

    Each process is then the first one and writes its files: pieces that write need names of their own.
    """
    former = dict(_shared)
    _shared.update(rank=0, world=1)
    try:
        yield
    finally:
        _shared.update(former)


def mine(items: Iterable[Item]) -> Iterator[Item]:
    """Iterate over every n-th item, the share of this process."""
    return (item for k, item in enumerate(items) if k % world() == rank())


def sum_up(*tensors: "Tensor") -> None:
    """Replace tensors of equal shape in all processes by their sums, in place; the same bits in all processes."""
    if world() > 1:
        import torch

        for tensor in tensors:
            torch.distributed.all_reduce(tensor)


def largest(number: int) -> int:
    """The largest number of all processes; quicker than ``gathered``."""
    if world() == 1:
        return number
    import torch

    found = torch.tensor(number, device="cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return int(found)


def gathered(value: Any) -> list:
    """Values of all processes, list by rank, of what can be pickled."""
    if world() == 1:
        return [value]
    import torch

    found: list = [None] * world()
    torch.distributed.all_gather_object(found, value)
    return found


def of_first(value: Item) -> Item:
    """Value of the first process, in all processes."""
    return gathered(value)[0]


def in_turn(values: Sequence[Item]) -> list[Item]:
    """Results for ``mine(items)`` of all processes, in the order of the items."""
    parts = gathered(list(values))
    return [part[k] for k in range(len(parts[0])) for part in parts if k < len(part)]


def of_rows(function: "Callable[[NDArray], NDArray]", rows: "NDArray") -> "NDArray":
    """``function(rows)``, an array with an entry for each of the rows, of which every process takes every n-th."""
    if world() == 1 or not len(rows):
        return function(rows)
    import numpy as np

    return np.stack(in_turn(function(rows[rank() :: world()])))  # type: ignore[arg-type]  # an array of entries


def summed(state: Any) -> Any:
    """Sums over all processes of the numbers, arrays and tensors of nested dicts and lists, which may lack entries.

    A tensor without elements stands for zeros.
    """
    if world() == 1:
        return state
    import torch

    own = dict(_flat(state))
    places: dict[tuple, Any] = {}
    for part in gathered({place: _kind(value) for place, value in own.items()}):
        for place, kind in part.items():
            if isinstance(kind, tuple):
                places[place] = kind if place not in places or 0 not in kind[0] else places[place]
            else:  # a number is its own kind, so that it needs no further exchange
                places[place] = places.get(place, 0) + kind
    for place, kind in places.items():
        if not isinstance(kind, tuple):
            own[place] = kind
            continue
        value: Any = own.get(place)
        empty = value is None or not value.numel()
        own[place] = torch.zeros(kind[0], dtype=kind[1], device=kind[2]) if empty else value.clone()
        sum_up(own[place])
    return _nested({place: own[place] for place in places})


def _flat(state, place=()):
    """Pairs of the place and the value of every number and tensor; places in lists are numbers."""
    if isinstance(state, (dict, list)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _flat(value, (*place, key))
    else:
        yield place, state


def _kind(value):
    """Shape, type and device of a tensor; a number as it is."""
    return (tuple(value.shape), value.dtype, value.device.type) if hasattr(value, "numel") else value


def _nested(flat):
    """The state of which ``flat`` has the numbers and tensors."""
    if () in flat:
        return flat[()]
    parts: dict = {}
    for (key, *rest), value in flat.items():
        parts.setdefault(key, {})[tuple(rest)] = value
    found = {key: _nested(part) for key, part in parts.items()}
    return [found[k] for k in sorted(found)] if all(isinstance(key, int) for key in found) and found else found
