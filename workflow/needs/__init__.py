"""What a job needs of a machine, memory and minutes, for a scheduler to pack jobs by.

It is counted in voxels, rows and bytes that the job reads, which measured constants turn into
megabytes and minutes of one CPU core. Of a run more is counted, with torch: `run`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel

from workflow.data import layout
from workflow.data.faults import DataError
from workflow.data.prepare import FEWEST, Prepared

SCHEDULED = 900
"""MB of the two calls of Snakemake inside which Slurm runs a job: 400 each, measured."""

START = 30
"""Seconds until a job has loaded its code."""

SLOWER, MARGIN = 4, 5
"""Cores may be so much slower, losses and file systems too; and minutes on top of that."""

PREPARING = 500
"""MB of a process that prepares, before it has read a volume."""

PREPARED_VOXEL, PREPARED_VALUE = 20, 16
"""Bytes that the preparation of a volume holds for each voxel, and for each channel of it."""

PACKED = 1032
"""Values that a byte of a file holds at most: the greatest compression of gzip, of bytes."""

PREPARED_A_SECOND = 1.5e6
"""Values that are read, judged, resampled and written in a second."""

COMPARING = 600
"""MB of a process that compares or tells, before its tables."""

ROW_HELD, ROWS_A_SECOND = 1500, 1e4
"""Bytes held for a row of scores while runs are compared, and rows that are compared a second."""

VOXEL_SHOWN = 40
"""Bytes held for each voxel of a channel while what is shown of cases is cut out."""

ZIPPED = 10
"""Bytes of a file for each byte that it takes when it is compressed."""

TOLD_HELD, TOLD_A_SECOND = 10, 2
"""MB held for each MB of files that are told, and MB that are told in a second."""


class Needs(NamedTuple):
    """Of one job."""

    mem_mb: int
    minutes: int

    def scheduled(self) -> Needs:
        """The same as a job of a scheduler."""
        return self._replace(mem_mb=self.mem_mb + SCHEDULED)


def images(root: Path) -> list[tuple[int, int]]:
    """Voxels and values (channels x voxels) of each case of a folder, by the headers of its files.

    What is wrong with a file or the folder is not told here: the preparation does that.
    """
    try:
        cases = layout.read(root, incomplete=True).cases
    except DataError:
        return []
    found = []
    for case in cases:
        try:
            shapes = [nibabel.Nifti1Image.from_filename(image).shape for image in case.images]
        except Exception:  # of a damaged file nibabel raises whatever its parts do
            continue
        values = sum(
            # no more than the file can hold, whatever its header says
            min(math.prod(shape), PACKED * image.stat().st_size)
            for shape, image in zip(shapes, case.images, strict=True)
        )
        found.append((min(values, math.prod(shapes[0][:3])), values))
    return found


def of_preparation(images: Sequence[tuple[int, int]], threads: int) -> Needs:
    """What the preparation of a data set needs; ``images`` as `images` finds them."""
    processes = max(1, min(threads, len(images) // FEWEST))
    largest = max((PREPARED_VOXEL * voxels + PREPARED_VALUE * n for voxels, n in images), default=0)
    values = sum(n for _, n in images)
    return Needs(
        mem_mb=math.ceil(processes * (PREPARING + largest / 1e6)),
        minutes=minutes(START + values / PREPARED_A_SECOND / processes),
    )


def of_comparison(runs: int, prepared: Prepared) -> Needs:
    """What the tables of so many runs on these data need, if every case were a test case."""
    # of the best and the last checkpoint
    rows = 2 * runs * len(prepared.cases) * (len(prepared.classes) - 1)
    largest = max(math.prod(case.shape) for case in prepared.cases)
    held = rows * ROW_HELD + largest * VOXEL_SHOWN * len(prepared.channels)
    return Needs(
        mem_mb=math.ceil(COMPARING + held / 1e6), minutes=minutes(START + rows / ROWS_A_SECOND)
    )


def of_telling(inputs: Iterable[Path]) -> Needs:
    """What figures, answers, report or paper need that are made of these files and folders."""
    files = [
        file
        for path in inputs
        for file in (path.rglob("*") if path.is_dir() else [path])
        if file.is_file()
    ]
    sizes = (f.stat().st_size * (ZIPPED if f.suffix in (".gz", ".npz") else 1) for f in files)
    megabytes = sum(sizes) / 1e6
    return Needs(
        mem_mb=math.ceil(COMPARING + megabytes * TOLD_HELD),
        minutes=minutes(START + megabytes / TOLD_A_SECOND),
    )


def minutes(seconds: float) -> int:
    """To ask for work that takes so many seconds of the core that was measured."""
    return math.ceil(MARGIN + SLOWER * seconds / 60)
