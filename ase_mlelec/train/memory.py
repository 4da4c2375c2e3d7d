"""Whether the matrices of a closed form fit into memory, before they are allocated."""

from pathlib import Path

NUMBER = 8  # bytes of one in double precision


def available_memory() -> int | None:
    """Free memory, bytes, of the machine or of the control group that limits the process; None where it is unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limit, used = (
            Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current")
        )
        if limit != "max":
            found.append(max(int(limit) - int(used), 0))
    except (OSError, ValueError, IndexError):
        pass
    return min(found) if found else None


def memory_suffices(n_numbers: int) -> bool:
    """Whether ``n_numbers`` numbers in double precision fit into the free memory, if that is known."""
    left = available_memory()
    return left is None or NUMBER * n_numbers <= left


def check_memory(n_numbers: int, what: str, remedy: str) -> None:
    """Raise ValueError where ``n_numbers`` numbers in double precision exceed the free memory.

    Parameters
    ----------
    what : str
        Purpose of the memory, for the message.
    remedy : str
        Remedy, for the message.
    """
    left = available_memory()
    if left is not None and NUMBER * n_numbers > left:
        raise ValueError(
            f"{what} would need {NUMBER * n_numbers / 1e9:.3g} GB of memory, {left / 1e9:.3g} GB are left; {remedy}"
        )
