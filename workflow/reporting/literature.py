"""Numbers of other papers, each with its source: one table for the reports and the paper."""

from __future__ import annotations

from pathlib import Path

from workflow import files

TABLE = Path(__file__).with_name("literature.csv")


def quoted(name: str) -> float:
    """The number of that name; raises ``KeyError`` where there is none."""
    return float(files.read_table(TABLE).set_index("name").at[name, "value"])
