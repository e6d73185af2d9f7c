"""What is wrong with a data set, said in one line per fault."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 40  # more lines than this are read by nobody


class DataError(Exception):
    """A data set that cannot be used. Each line names the file, the fault and the remedy.

    Args:
        faults: one line, or one line for each fault; beyond 40 the rest is only counted.
    """

    def __init__(self, faults: str | Sequence[str]) -> None:
        faults = (faults,) if isinstance(faults, str) else faults
        self.faults = tuple(map(one_line, faults))
        lines = list(self.faults[:SHOWN])
        if len(self.faults) > SHOWN:
            lines.append(f"... and {len(self.faults) - SHOWN} more faults")
        super().__init__("\n".join(lines))


def one_line(text: str) -> str:
    r"""The text with what would break the line, steer a terminal or not encode written as escapes.

    >>> one_line("two\nlines")
    'two\\nlines'
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )
