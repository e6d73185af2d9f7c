"""Fetch a task of the Medical Segmentation Decathlon, by MONAI's table of archives."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from workflow.data.faults import DataError

SOURCE = "http://medicaldecathlon.com (Antonelli et al. 2022, CC BY-SA 4.0)"


def fetch(
    task: str,
    root: Path,
    resource: Mapping[str, str] | None = None,
    md5: Mapping[str, str] | None = None,
) -> Path:
    """The folder `root/<task>`, downloaded unless it is there.

    An existing folder is used as it is, whoever put it there. The archive is checked against its
    checksum and unpacked beside the target, which appears only when it is complete.

    Args:
        task: such as "Task04_Hippocampus".
        root: folder that holds, or will hold, the folder of the task.
        resource: address of each task's archive; MONAI's by default.
        md5: checksum of each archive; MONAI's by default.

    Raises:
        DataError: an unknown task, no network, a wrong checksum, an archive that leaves its folder
            or holds no data set.
    """
    target = Path(root) / task
    if (target / "dataset.json").is_file():
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
        os.rename(unpacked, target)
    return target
