"""No network: archives are local files behind file:// addresses."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest

from workflow.data.dataset import DataError, read
from workflow.data.decathlon import fetch

TASK = "Task04_Hippocampus"


def publish(archive: Path) -> dict[str, dict[str, str]]:
    """Tables of addresses and checksums that hold one local archive."""
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    return {"resource": {TASK: archive.as_uri()}, "md5": {TASK: digest}}


@pytest.fixture
def archive(pristine: Path, tmp_path: Path) -> Path:
    path = tmp_path / "server" / f"{TASK}.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(pristine, arcname=TASK)
    return path


def test_a_task_is_fetched_once_and_readable(archive: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = fetch(TASK, home, **publish(archive))
    assert folder == home / TASK
    assert len(read(folder).cases) == 4
    assert sorted(entry.name for entry in home.iterdir()) == [TASK, f"{TASK}.sha256"]
    archive.unlink()
    assert fetch(TASK, home) == folder


def test_what_was_downloaded_is_held_against_its_digests(archive: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = fetch(TASK, home, **publish(archive))
    lines = (home / f"{TASK}.sha256").read_text().splitlines()
    assert lines[0] == f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {TASK}.tar"
    assert len(lines) == 1 + sum(path.is_file() for path in folder.rglob("*"))
    changed, lost = sorted((folder / "imagesTr").iterdir())[:2]
    changed.write_bytes(changed.read_bytes() + b"!")
    lost.unlink()
    with pytest.raises(DataError) as caught:
        fetch(TASK, home)
    said = str(caught.value).splitlines()
    assert len(said) == 2
    assert f"{changed}: changed since the download" in said[0]
    assert f"{lost}: lost since the download; remove {folder}" in said[1]


def test_a_folder_of_somebody_else_is_used_as_it_is(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / TASK))
    assert fetch(TASK, tmp_path) == folder


def test_a_wrong_checksum_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    tables = publish(archive)
    tables["md5"][TASK] = "0" * 32
    with pytest.raises(DataError, match="checksum is not 0000"):
        fetch(TASK, tmp_path / "home", **tables)
    assert list((tmp_path / "home").iterdir()) == []


def test_without_network_the_folder_to_provide_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("monai.apps.utils.urlretrieve", unreachable)
    with pytest.raises(DataError) as caught:
        fetch(TASK, tmp_path / "home")
    said = str(caught.value)
    assert "\n" not in said
    assert "Name or service not known" in said
    assert f"provide the unpacked folder {tmp_path / 'home' / TASK}" in said
    assert "medicaldecathlon.com" in said
    assert list((tmp_path / "home").iterdir()) == []


LINK, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
ESCAPES = {
    "a path upwards": [("../../escaped.txt", tarfile.REGTYPE, "")],
    "an absolute path": [("{here}/escaped.txt", tarfile.REGTYPE, "")],
    "through a link": [(f"{TASK}/in", LINK, "{here}"), (f"{TASK}/in/escaped.txt", b"0", "")],
    "through a link upwards": [
        (f"{TASK}/in", LINK, "../../.."),
        (f"{TASK}/in/escaped.txt", b"0", ""),
    ],
    "a link to a secret": [(f"{TASK}/dataset.json", LINK, "{here}/secret")],
    "a hard link to a secret": [(f"{TASK}/dataset.json", HARD, "../../../secret")],
    "a device": [(f"{TASK}/dataset.json", tarfile.CHRTYPE, "")],
}


@pytest.mark.parametrize("members", ESCAPES.values(), ids=ESCAPES)
def test_an_archive_cannot_leave_its_folder(
    members: list[tuple[str, bytes, str]], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("{}")
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name.format(here=tmp_path))
            member.type, member.linkname = kind, target.format(here=tmp_path)
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match=r"cannot be unpacked|no Task04_Hippocampus/dataset\.json"):
        fetch(TASK, tmp_path / "home", **publish(path))
    assert not list(tmp_path.rglob("escaped.txt"))
    assert list((tmp_path / "home").iterdir()) == []


def test_an_archive_without_the_task_or_no_archive_is_refused(
    pristine: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(pristine, arcname="Something")
    with pytest.raises(DataError, match=f"no {TASK}/dataset.json in the archive"):
        fetch(TASK, tmp_path / "home", **publish(path))
    path.write_bytes(b"<html>" * 1000)
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch(TASK, tmp_path / "home", **publish(path))


def test_unknown_tasks_and_half_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="unknown task 'Task11', expected one of Task01_BrainTumour"
    ):
        fetch("Task11", tmp_path)
    (tmp_path / TASK).mkdir()
    with pytest.raises(DataError, match=r"no dataset\.json"):
        fetch(TASK, tmp_path)
