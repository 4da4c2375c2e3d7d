"""Results of chunks of atoms, one after the other, in one array."""

from torch import Tensor


class Chunked:
    """A Tensor [n, ...] to which chunks are copied as they come.

    Results of chunks that are kept apart lie between the large arrays of the chunks, whose places are then too small to be
    used again: memory grew by several times what is kept.

    Parameters
    ----------
    n : int
        Rows of all chunks.
    planes : bool
        Whether the columns of a matrix are contiguous, as those of vectors are.
    """

    def __init__(self, n: int, planes: bool = False) -> None:
        self.n, self.planes = n, planes
        self._whole: Tensor | None = None
        self._filled = 0

    def add(self, part: Tensor) -> None:
        """Append the rows of a chunk; a chunk of all rows is kept as it is."""
        if self._whole is None:
            self._whole = part if len(part) == self.n else self._empty(part)
        end = self._filled + len(part)
        if self._whole is not part:
            self._whole[self._filled : end] = part
        self._filled = end

    def _empty(self, part):
        shape = part.shape[1:]
        return part.new_empty(*shape, self.n).movedim(-1, 0) if self.planes else part.new_empty(self.n, *shape)

    @property
    def whole(self) -> Tensor:
        """All rows."""
        if self._whole is None or self._filled != self.n:
            raise RuntimeError(f"{self._filled} of {self.n} rows have been added")
        return self._whole
