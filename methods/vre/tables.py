"""Numbers by name inside a module's state: what is remembered of each caption or clip from epoch to epoch."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bench.nn.host import on_device
from bench.nn.layers import HostState


class Table(HostState):
    """One number for each name, in two buffers: the marks of the names in ascending order, and the values.

    A mark is the first eight bytes of a name's SHA-256, so that a checkpoint says by itself which number belongs to whom,
    in whatever order the names are met. A new table has no rows; `open` makes them. The names are looked up on the CPU.
    """

    of_host = ("marks",)
    marks: Tensor
    values: Tensor

    def __init__(self, empty: float, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.empty = empty
        self.register_buffer("marks", torch.empty(0, dtype=torch.long))
        self.register_buffer("values", torch.empty(0, dtype=dtype))

    def open(self, names: Iterable[str]) -> None:
        """Rows for `names` and no others, all empty."""
        marks = sorted(_mark(name) for name in names)
        if len(set(marks)) < len(marks):
            raise ValueError("a table needs names that differ")
        self.make_room(len(marks))
        self.marks.copy_(torch.tensor(marks, dtype=torch.long))

    def make_room(self, rows: int) -> None:
        """`rows` empty rows without names, for a state that is about to be loaded."""
        self.marks = self.marks.new_zeros(rows)
        self.values = self.values.new_full((rows,), self.empty)

    def _rows(self, names: Sequence[str]) -> Tensor:
        marks = torch.tensor([_mark(name) for name in names], dtype=torch.long)
        known = torch.isin(marks, self.marks)
        if not known.all():
            unknown = next(name for name, here in zip(names, known.tolist(), strict=True) if not here)
            raise KeyError(f"{unknown} is not in this table of {len(self.marks)} names")
        return on_device(torch.searchsorted(self.marks, marks), self.values.device)

    def find(self, names: Sequence[str]) -> Tensor:
        """The numbers of `names`, in their order."""
        return self.values[self._rows(names)]

    def put(self, names: Sequence[str], values: Tensor) -> None:
        """Store one number for each of `names`."""
        self.values[self._rows(names)] = values.to(self.values.dtype)

    def replace(self, names: Sequence[str], values: Tensor) -> Tensor:
        """Store new numbers; returns by how much each differs from the one before, not-a-number where there was none."""
        rows = self._rows(names)
        values = values.to(self.values.dtype)
        change = values - self.values[rows]
        self.values[rows] = values
        return change


def _mark(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
