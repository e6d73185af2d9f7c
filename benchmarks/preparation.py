"""Does memory grow with the number of cases, and how long does training take to start?

    python -m benchmarks.preparation            # 20 and 200 cases of 64 x 64 x 32 voxels

Makes folders of random volumes, then prepares each and draws patches of every case of it, each in a
process of its own that says its peak memory. The start is what stands between loaded code and the
first batch: `prepared.json`, the sampler and two patches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.peak import peak_mib

SHAPE = (64, 64, 32)


def write(folder: Path, count: int, shape: tuple[int, ...]) -> None:
    """A Decathlon folder of noise around one block of each of two classes."""
    rng = np.random.default_rng(0)
    training = []
    for number in range(count):
        label = np.zeros(shape, np.uint8)
        corner = rng.integers(2, np.array(shape) // 2)
        x, y, z = (slice(c, c + n // 3) for c, n in zip(corner, shape, strict=True))
        label[x, y, z] = 1
        label[x, y, z.start : z.start + 2] = 2
        image = (rng.integers(0, 200, shape) + 100 * label).astype(np.int16)
        entry = {}
        for part, array in (("image", image), ("label", label)):
            path = folder / f"{part}sTr" / f"case_{number:04d}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
            entry[part] = str(path.relative_to(folder))
        training.append(entry)
    labels = {"0": "background", "1": "block", "2": "plate"}
    content = {"modality": {"0": "MRI"}, "labels": labels, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))


def prepare(folder: Path, out: Path) -> dict[str, float]:
    """Seconds of a first and a second call, in one process."""
    from workflow.data.dataset import merge_labels, read
    from workflow.data.prepare import prepare

    found = read(folder)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        prepare(found, out, *merge_labels(found.labels))
        seconds.append(time.perf_counter() - started)
    return {"first_seconds": seconds[0], "second_seconds": seconds[1]}


def start(out: Path) -> dict[str, float]:
    """Seconds to the first batch; then as many batches as show every case."""
    from workflow.data.patches import PatchSampler
    from workflow.data.prepare import load_prepared

    started = time.perf_counter()
    prepared = load_prepared(out)
    sampler = PatchSampler(
        *prepared.patches_of(prepared.cases), patch_size=(32, 32, 32), batch_size=2,
        foreground_share=2 / 3, flips=True, intensity=0.1, order_seed=0, augmentation_seed=0,
    )  # fmt: skip
    next(sampler)
    seconds = time.perf_counter() - started
    for _ in range(5 * len(prepared.cases)):
        next(sampler)
    return {"start_seconds": seconds}


def measured(*words: object) -> dict[str, float]:
    """What a step says, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.preparation", *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--step", choices=("prepare", "start"), help="measure in this process")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    if options.step:
        out = options.folder / "prepared"
        found = prepare(options.folder, out) if options.step == "prepare" else start(out)
        print(json.dumps(found | {"peak_mib": peak_mib()}))
        return
    rows = []
    for count in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), count, tuple(options.shape))
            for step in ("prepare", "start"):
                found = measured("--step", step, "--folder", folder)
                rows.append({"cases": count, "step": step} | found)
                print(rows[-1], flush=True)
    import pandas as pd  # not in the processes that are measured

    table = pd.DataFrame(rows).round(3)
    table.to_csv(options.out / "preparation.csv", index=False)


if __name__ == "__main__":
    main()
