"""What is wrong with a data set, said in one line per fault."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 40  # more lines than this are read by nobody


class DataError(Exception):
    """A data set that cannot be used. Each line names the file, the fault and what was expected.

    Args:
        faults: one line, or one line for each fault; beyond 40 the rest is only counted.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        lines = list(self.faults[:SHOWN])
        if len(self.faults) > SHOWN:
            lines.append(f"... and {len(self.faults) - SHOWN} more faults")
        super().__init__("\n".join(lines))
