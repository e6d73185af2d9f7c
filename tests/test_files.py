"""A file is either whole or untouched."""

import errno

import numpy as np
import pandas as pd
import pytest

from workflow import files


def test_a_full_disk_leaves_the_old_table_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "runs.csv"
    files.write_table(path, pd.DataFrame({"a": [1]}))
    before = path.read_bytes()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_table(path, pd.DataFrame({"a": [2]}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["runs.csv"]


def test_tables_keep_the_floats_that_matter_and_the_umask(tmp_path):
    path = tmp_path / "new" / "table.csv"
    files.write_table(path, pd.DataFrame({"x": [1 / 3], "n": [None]}))
    assert path.read_text() == "x,n\n0.333333333,\n"
    assert path.stat().st_mode & 0o444 == 0o444


def test_arrays_are_what_numpy_writes(tmp_path):
    arrays = {"case 1": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "é": np.zeros((0, 2))}
    files.write_arrays(tmp_path / "ours.npz", arrays)
    np.savez_compressed(tmp_path / "theirs.npz", **arrays)
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "theirs.npz").read_bytes()


def test_a_case_may_have_the_name_of_an_argument_of_numpy(tmp_path):
    arrays = {name: np.full(3, i) for i, name in enumerate(("file", "allow_pickle", "arr_0"))}
    files.write_arrays(tmp_path / "arrays.npz", arrays)
    with np.load(tmp_path / "arrays.npz") as written:
        assert list(written) == list(arrays)
        assert all((written[name] == array).all() for name, array in arrays.items())


def test_a_packed_table_is_read_where_the_plain_one_is_missing(tmp_path):
    files.write_table(tmp_path / "cases.csv.gz", pd.DataFrame({"case": ["001"], "dice": [0.5]}))
    packed = files.read_table(tmp_path / "cases.csv")
    assert packed.to_dict("records") == [{"case": "001", "dice": 0.5}]
    files.write_table(tmp_path / "cases.csv", pd.DataFrame({"case": ["002"]}))
    assert list(files.read_table(tmp_path / "cases.csv")["case"]) == ["002"]
    assert files.read_table(tmp_path / "runs.csv").empty
