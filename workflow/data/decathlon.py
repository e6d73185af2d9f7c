"""Fetch a task of the Medical Segmentation Decathlon, by MONAI's table of archives.

That table knows an archive's MD5 and no other sum. So the SHA-256 of the archive and of every file
in it are written down when it is unpacked, in ``<task>.sha256`` beside the folder, and the files
are held against them whenever the folder is used again. The archive itself is not kept;
``sha256sum --check --ignore-missing <task>.sha256`` checks the files without this program.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from workflow import files
from workflow.data.faults import DataError

SOURCE = "http://medicaldecathlon.com (Antonelli et al. 2022, CC BY-SA 4.0)"


def fetch(
    task: str,
    root: Path,
    resource: Mapping[str, str] | None = None,
    md5: Mapping[str, str] | None = None,
) -> Path:
    """The folder `root/<task>`, downloaded unless it is there.

    A folder that somebody else put there is used as it is, one that was downloaded only if its
    files still have the digests of that day. The archive is checked against its checksum and
    unpacked beside the target, which appears only when it is complete.

    Args:
        task: such as "Task04_Hippocampus".
        root: folder that holds, or will hold, the folder of the task.
        resource: address of each task's archive; MONAI's by default.
        md5: checksum of each archive; MONAI's by default.

    Raises:
        DataError: an unknown task, no network, a wrong checksum, an archive that leaves its folder
            or holds no data set; a file that was changed or lost since the download.
    """
    target = Path(root) / task
    if (target / "dataset.json").is_file():
        _hold(target)
        return target
    # Late, as MONAI takes seconds to import and most studies never download.
    from monai.apps import DecathlonDataset
    from monai.apps.utils import HashCheckError, download_url, extractall

    resource = DecathlonDataset.resource if resource is None else resource
    md5 = DecathlonDataset.md5 if md5 is None else md5
    if task not in resource:
        raise DataError(f"decathlon: unknown task '{task}', expected one of {', '.join(resource)}")
    if target.exists():
        raise DataError(f"{target}: no dataset.json, expected the unpacked {task} or no folder")
    address = resource[task]
    instead = f"provide the unpacked folder {target} yourself; the data come from {SOURCE}"
    Path(root).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{task}-", dir=root) as part:
        archive = Path(part) / "archive.tar"
        try:
            download_url(address, archive, md5[task], hash_type="md5", progress=False)
        except HashCheckError:
            raise DataError(
                f"{address}: the download's checksum is not {md5[task]}; {instead}"
            ) from None
        except (OSError, RuntimeError) as error:
            raise DataError(f"{address}: cannot be downloaded ({error}); {instead}") from None
        try:
            extractall(archive, Path(part) / "unpacked", file_type="tar", has_base=False)
        except Exception as error:  # tarfile and MONAI raise a wide range
            raise DataError(f"{address}: cannot be unpacked ({error}); {instead}") from None
        unpacked = Path(part) / "unpacked" / task
        if not (unpacked / "dataset.json").is_file():
            raise DataError(f"{address}: no {task}/dataset.json in the archive; {instead}")
        # the digests first: a folder of ours never lies there without them
        digests = {f"{task}.tar": _sha256(archive)} | _digests(unpacked)
        with files.replacing(_list(target)) as temporary:
            temporary.write_text("".join(f"{d}  {name}\n" for name, d in digests.items()), "utf-8")
        os.rename(unpacked, target)
    return target


def _list(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path from where the folder lies."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder.parent).as_posix(): _sha256(path) for path in found}


def _hold(target: Path) -> None:
    """Raises ``DataError`` for files that are no longer what was downloaded."""
    if not _list(target).is_file():
        return
    lines = _list(target).read_text(encoding="utf-8").splitlines()
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = _digests(target)
    faults = [
        f"{target.parent / name}: {'changed' if name in found else 'lost'} since the download; "
        f"remove {target} and {_list(target).name} to download it again"
        for name, digest in known.items()
        if name.startswith(f"{target.name}/") and found.get(name) != digest
    ]
    if faults:
        raise DataError(faults)
