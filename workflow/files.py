"""Files that are either whole or not there: every table, figure and report is written this way."""

from __future__ import annotations

import fcntl
import gzip
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

LOG = logging.getLogger("rareclass")

TEXT_COLUMNS = (
    *("against", "axis", "case", "checkpoint", "class", "collapse", "collapsed_classes", "commit"),
    *("contrast", "dataset", "endpoint", "family", "key", "kind", "loss", "name", "quantity"),
    *("reason", "role", "split", "status", "subject", "tier", "torch", "twin"),
    *("aspect", "rule", "verdict", "arm", "test_set"),
)
"""Columns that hold names or words in every table, also where a name looks like a number."""


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    When the block fails (disk full, say) the old file stays as it was and nothing else is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files private; results are for everybody whom the umask allows
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of :func:`replacing` that a killed process left in a folder."""
    for path in folder.glob(".*.????????.*"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, work: str) -> Iterator[bool]:
    """Holds the folder, made if missing, until the block ends; another process waits for it.

    ``work`` tells the one that waits what the other does. The lock goes with the process, however
    that ends. Gives whether it is held: on a file system without locks nobody waits.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(handle, folder, work)
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, work: str) -> bool:
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("%s: waiting for another process that %s", folder, work)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        LOG.warning("%s: cannot be locked (%s)", folder, error)
        return False
    return True


def write_text(path: Path | str, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, content: Any) -> None:
    """Writes readable JSON atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Reads JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_arrays(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed ``.npz`` atomically.

    Not by ``numpy.savez_compressed``, which takes the arrays as keyword arguments beside its own:
    it fails at a case called ``file`` and drops one called ``allow_pickle``.
    """
    import numpy as np

    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def read_table(path: Path | str) -> pd.DataFrame:
    """Reads a CSV table of a study; a case called ``001`` or a class called ``NA`` keeps its name.

    Where ``table.csv`` is missing ``table.csv.gz`` is read; a table that is
    missing in both forms, or an empty file, is an empty table.
    """
    import pandas as pd

    path = Path(path)
    packed = path.with_name(f"{path.name}.gz")
    if packed.is_file() and not path.is_file():
        path = packed
    if not path.is_file():
        return pd.DataFrame()
    try:
        header = pd.read_csv(path, nrows=0).columns
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return pd.read_csv(
        path,
        dtype={name: str for name in header if name in TEXT_COLUMNS},
        keep_default_na=False,
        na_values={name: ["", "nan"] for name in header if name not in TEXT_COLUMNS},
    )


def write_table(path: Path | str, table: Any) -> None:
    """Writes a pandas ``DataFrame`` as CSV atomically; floats keep what identifies them.

    A path that ends in ``.gz`` is compressed, the same table to the same bytes.
    """
    path = Path(path)
    text = table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()
    with replacing(path) as temporary:
        # pandas would keep the name of the temporary file in the packed one
        temporary.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
