"""From a verified data set to arrays that training can map into memory.

<out>/images/<case>.npy      float32 (channels, x, y, z): cropped, normalised, resampled
<out>/labels/<case>.npy      uint8 (x, y, z), merged classes on the grid of the image
<out>/references/<case>.npy  the same on the grid of the file, where that is another one
<out>/foreground/<case>.npy  flat indices of up to 10,000 voxels of each foreground class, in order
<out>/cases/<case>.npz       what the examination of the case found, and of which content
<out>/prepared.json          what they are; written last, so its presence means all is there

Each case is a task of its own, whichever process does it. What it wrote is used again if it was
made of the same bytes, settings and code: a killed preparation goes on, and of a changed data set
only the changed cases are read again.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import mmap
import multiprocessing
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from workflow import files, provenance
from workflow.data import transform
from workflow.data.choices import Choices, Wishes, choose, settled
from workflow.data.dataset import (
    DataSet,
    Examination,
    Verification,
    Volume,
    examine,
    judge,
    load_image,
    load_label,
)
from workflow.data.evidence import Thumbnail
from workflow.data.faults import DataError
from workflow.data.fingerprint import Box, Facts, fingerprint
from workflow.data.layout import Case

if TYPE_CHECKING:
    import torch

ARRAYS = ("images", "labels", "references", "foreground")
FEWEST = 8  # cases a process; for fewer its start would take longer than its work


@dataclass(frozen=True)
class PreparedCase:
    """What is known of a case without opening its arrays.

    ``name`` tells it from every other case, ``dataset`` is where it comes from. ``shape`` and
    ``array_voxels`` (of each class) are of the arrays; ``file_shape``, ``spacing`` and ``affine``
    (mm) and ``voxels`` (of each class) are of the files, whose part in ``box`` the arrays show.
    """

    name: str
    subject: str
    shape: tuple[int, int, int]
    array_voxels: dict[str, int]
    file_shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    voxels: dict[str, int]
    box: Box
    image_sha256: str
    label_sha256: str
    dataset: str
    root: Path
    source: str

    @property
    def present(self) -> frozenset[str]:
        """Foreground classes with at least one voxel."""
        return frozenset(name for name, count in list(self.voxels.items())[1:] if count)

    @property
    def array_spacing(self) -> tuple[float, float, float]:
        """Of the arrays, in mm: their voxels fill the box."""
        x, y, z = (
            edge * (stop - start) / length
            for edge, (start, stop), length in zip(self.spacing, self.box, self.shape, strict=True)
        )
        return x, y, z

    @property
    def moved(self) -> bool:
        """Whether the arrays have another grid than the files."""
        whole = tuple((0, length) for length in self.file_shape)
        return self.shape != self.file_shape or self.box != whole


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared arrays; `classes[0]` is "background".

    ``fingerprint`` is that of the data set, ``choices`` what was done to its cases and
    ``patch_voxels`` the budget of a patch that is chosen from both.
    """

    root: Path
    name: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    reference: str
    licence: str
    warnings: tuple[str, ...]
    fingerprint: dict[str, Any]
    choices: Choices
    patch_voxels: int
    cases: tuple[PreparedCase, ...]

    def image(self, case: PreparedCase) -> np.ndarray:
        """Image (channels, x, y, z) float32, mapped read-only."""
        return np.load(_array(case.root, "images", case.source), mmap_mode="r")

    def label(self, case: PreparedCase) -> np.ndarray:
        """Classes (x, y, z) uint8 on the grid of the image, mapped read-only."""
        return np.load(_array(case.root, "labels", case.source), mmap_mode="r")

    def reference_label(self, case: PreparedCase) -> np.ndarray:
        """Classes (x, y, z) uint8 on the grid of the file: what a prediction is scored with."""
        if not case.moved:
            return self.label(case)
        return np.load(_array(case.root, "references", case.source), mmap_mode="r")

    def patches_of(
        self, cases: Sequence[PreparedCase]
    ) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[list[np.ndarray]]]:
        """Images, labels and foreground of cases, as `PatchSampler` takes them.

        Each is mapped anew at each access, so that neither the files that are open nor the pages
        that are mapped grow with the number of cases. Foreground: flat indices of up to 10,000
        voxels of each class that the arrays show, background aside.
        """
        images, labels, marked = (
            _Mapped([_array(case.root, folder, case.source) for case in cases])
            for folder in ("images", "labels", "foreground")
        )
        sizes = [
            [min(KEPT, count) for count in list(case.array_voxels.values())[1:] if count]
            for case in cases
        ]
        return images, labels, _Parts(marked, sizes)

    def restored(self, case: PreparedCase, logits: torch.Tensor) -> torch.Tensor:
        """Logits (classes, x, y, z) of the arrays on the grid of the file."""
        if not case.moved:
            return logits
        return transform.restored(
            logits, case.file_shape, case.box, case.spacing, case.array_spacing
        )

    def joined(self, external: Prepared) -> Prepared:
        """With the cases of another data set, whose names (and subjects) begin with its name.

        Raises:
            DataError: it has other classes or channels, or the same name.
        """
        faults = [
            f"{external.name}: its {what} are {', '.join(theirs)}, but those of {self.name} are "
            f"{', '.join(ours)}"
            for what, theirs, ours in (
                ("classes", external.classes, self.classes),
                ("channels", external.channels, self.channels),
            )
            if theirs != ours
        ]
        if external.name == self.name:
            faults.append(f"{self.name}: two data sets have this name, expected different ones")
        if faults:
            raise DataError(faults)
        others = tuple(
            replace(
                case,
                name=f"{external.name}.{case.name}",
                subject=f"{external.name}.{case.subject}",
            )
            for case in external.cases
        )
        return replace(
            self,
            cases=self.cases + others,
            warnings=self.warnings + external.warnings,
        )


class _Mapped(Sequence[np.ndarray]):
    """Arrays of files, mapped read-only when asked for; headers are read once."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._headers: dict[int, tuple[np.dtype, tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: Any) -> Any:
        if index not in self._headers:
            array = np.load(self._paths[index], mmap_mode="r")
            self._headers[index] = array.dtype, array.shape, array.offset
            return array
        dtype, shape, offset = self._headers[index]
        with open(self._paths[index], "rb") as file:
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.ndarray(shape, dtype, buffer, offset)


class _Parts(Sequence[list[np.ndarray]]):
    """Arrays cut into consecutive parts."""

    def __init__(self, arrays: Sequence[np.ndarray], sizes: Sequence[Sequence[int]]) -> None:
        self._arrays, self._sizes = arrays, sizes

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: Any) -> Any:
        if not self._sizes[index]:  # an empty file cannot be mapped
            return []
        ends = itertools.accumulate(self._sizes[index])
        array = self._arrays[index]
        return [array[end - n : end] for n, end in zip(self._sizes[index], ends, strict=True)]


@dataclass(frozen=True)
class _Job:
    """What the work on every case has in common."""

    dataset: DataSet  # without its cases
    out: Path
    classes: tuple[str, ...]
    lookup: dict[int, int]
    patch_size: tuple[int, ...] | None
    code: str
    choices: Choices | None = None  # None: only examine
    write: bool = True


def prepare(
    dataset: DataSet,
    out: Path,
    classes: Sequence[str],
    lookup: Mapping[int, int],
    patch_size: Sequence[int] | None = None,
    wishes: Wishes | None = None,
    like: Prepared | None = None,
    jobs: int = 1,
    write: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Verify the data set and write its arrays, in each process one case in memory at a time.

    Two calls for one folder wait for each other, and the second finds what the first one did.

    Args:
        dataset: a folder that was read.
        out: folder for the arrays; made if missing.
        classes: class names, background first, and
        lookup: the class of each label value, both from `merge_labels`.
        patch_size: only to warn of smaller volumes.
        wishes: what the study asks of the preparation; default: arrays on the grid of the files.
        like: the data set whose choices are taken, for an external test set.
        jobs: processes, at most one for eight cases.
        write: False only verifies; the cases then have no arrays, and no file is left.
        progress: called with the cases done and the cases in all.

    Raises:
        DataError: with every fault of the data set; then there is no `prepared.json` in `out`, and
            arrays of sound cases stay for the next call.
    """
    if len(classes) > 256:
        raise DataError(f"{dataset.root}: {len(classes)} classes, expected at most 256")
    out = Path(out)
    wishes = wishes or Wishes()
    workers = min(jobs, len(dataset.cases) // FEWEST)
    with files.locked(out, "prepares these data"), _processes(workers) as each:
        (out / "prepared.json").unlink(missing_ok=True)
        for folder in (out, *(out / name for name in ("cases", *ARRAYS))):
            files.remove_leftovers(folder)
        choices = like.choices if like else settled(wishes, len(dataset.channels))
        patch = None if patch_size is None else tuple(patch_size)
        job = _Job(
            replace(dataset, cases=()), out, tuple(classes), dict(lookup), patch, _code(), choices,
            write,
        )  # fmt: skip
        rounds = 1 if choices else 2
        done = iter(range(1, rounds * len(dataset.cases) + 1))

        def work(job: _Job) -> list[tuple[Examination, PreparedCase | None]]:
            results = []
            for result in each(functools.partial(_one, job), dataset.cases):
                results.append(result)
                if progress:
                    progress(next(done), rounds * len(dataset.cases))
            return results

        results = work(job)
        notes = Verification()
        judge(dataset, (examination for examination, _ in results), notes)
        if notes.faults:
            raise DataError(notes.faults)
        found = fingerprint(
            [examination.facts for examination, _ in results if examination.facts],
            dataset.channels, classes, lookup,
        )  # fmt: skip
        if choices is None:
            try:
                choices = choose(found, wishes)
            except ValueError as error:
                raise DataError(f"{dataset.root}: {error}") from None
            results = work(replace(job, choices=choices))
        prepared = Prepared(
            root=out,
            name=dataset.name,
            classes=tuple(classes),
            channels=dataset.channels,
            reference=dataset.reference,
            licence=dataset.licence,
            warnings=tuple(notes.warnings),
            fingerprint=found,
            choices=choices,
            patch_voxels=wishes.patch_voxels,
            cases=tuple(
                replace(case, subject=notes.subject(case.subject)) for _, case in results if case
            ),
        )
        if write:
            _remove_others(prepared)
            _write_json(prepared)
    return prepared


def load_prepared(out: Path) -> Prepared:
    """Read `prepared.json`.

    Raises:
        DataError: missing or broken, so the preparation did not finish.
    """
    path = Path(out) / "prepared.json"
    try:
        content = files.read_json(path)
        place = {"dataset": content["name"], "root": Path(out)}
        return Prepared(
            root=Path(out),
            **{key: content[key] for key in ("name", "reference", "licence", "patch_voxels")},
            **{key: _frozen(content[key]) for key in ("classes", "channels", "warnings")},
            fingerprint=content["fingerprint"],
            choices=Choices(**_frozen(content["choices"])),
            cases=tuple(
                PreparedCase(**_frozen(case), **place, source=case["name"])
                for case in content["cases"]
            ),
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, the preparation is not finished") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}), prepare the data set again") from None


def load_all(folders: Iterable[Path]) -> Prepared:
    """A data set, joined by its external test set if there is a second folder."""
    own, *others = (load_prepared(folder) for folder in folders)
    for external in others:
        own = own.joined(external)
    return own


KEPT = 10_000  # foreground voxels remembered of a class and case: more would only cost memory


def foreground(label: np.ndarray) -> list[np.ndarray]:
    """Flat indices of the voxels of each class present, evenly thinned to `KEPT` of a class."""
    flat = label.ravel()
    places = np.flatnonzero(flat)
    values = flat[places]
    found = []
    for value in np.unique(values):
        voxels = places[values == value]
        if len(voxels) > KEPT:
            voxels = voxels[np.linspace(0, len(voxels) - 1, KEPT).astype(np.int64)]
        found.append(voxels.astype(np.uint32 if flat.size < 2**32 else np.uint64))
    return found


@contextmanager
def _processes(count: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map`` by this many processes; by this one where there would be no other."""
    if count < 2:
        yield map
        return
    # a forked process would inherit threads of torch in any state
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_begin)
    try:
        yield pool.map
    except BrokenProcessPool:
        raise MemoryError(
            "a process of the preparation was killed, probably for want of memory; fewer threads "
            "need less"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """One thread a process; and none outlives the one that started it, however that ends."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a process of the pool

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _one(job: _Job, case: Case) -> tuple[Examination, PreparedCase | None]:
    """Examine a case and write its arrays, as far as it was not done before."""
    key = _digest(job.code, job.dataset.labels, job.dataset.channels, job.patch_size, _bytes(case))
    memory = job.out / "cases" / f"{case.name}.npz"
    volume = None
    examination = _remembered(memory, key, case)
    if examination is None:
        volume, examination = examine(job.dataset, case, job.patch_size)
        if job.write and not examination.faults:
            _remember(memory, key, examination)
    if examination.faults or job.choices is None:
        return examination, None
    return examination, _prepared_case(job, examination, volume, key)


def _prepared_case(
    job: _Job, examination: Examination, volume: Volume | None, key: str
) -> PreparedCase:
    """The arrays of a sound case, which is loaded unless they are there or it is at hand."""
    case, facts, choices = examination.case, examination.facts, job.choices
    assert facts is not None and choices is not None and examination.affine is not None
    box = facts.box if choices.crop == "nonzero" else tuple((0, n) for n in facts.shape)
    inner = [stop - start for start, stop in box]
    voxels = dict.fromkeys(job.classes, 0)
    for value, count in facts.counts.items():
        voxels[job.classes[job.lookup[value]]] += count
    prepared = PreparedCase(
        name=case.name,
        subject=case.subject,
        shape=transform.target_shape(inner, facts.spacing, choices.spacing),
        array_voxels=voxels,
        file_shape=facts.shape,
        spacing=facts.spacing,
        affine=tuple(map(tuple, examination.affine.tolist())),
        voxels=voxels,
        box=box,
        image_sha256=examination.image_sha256,
        label_sha256="",
        dataset=job.dataset.name,
        root=job.out,
        source=case.name,
    )
    if not job.write:
        return prepared
    key = _digest(key, asdict(choices), job.classes, sorted(job.lookup.items()))
    note = job.out / "cases" / f"{case.name}.json"
    names = [name for name in ARRAYS if name != "references" or prepared.moved]
    with suppress(OSError, ValueError):  # missing or damaged: made again
        written = files.read_json(note)
        there = all(_array(job.out, name, case.name).is_file() for name in names)
        if there and written.pop("key") == key:
            return replace(prepared, **written)
    if volume is None:
        image, label = load_image(case)[0], load_label(case)[0]
    else:
        image, label = volume.image, volume.label
    table = np.zeros(max(job.lookup) + 1, dtype=np.uint8)
    for value, index in job.lookup.items():
        table[value] = index
    reference = table[label]
    arrays = _arrays(image, reference, prepared, choices)
    for name in names:
        with files.replacing(_array(job.out, name, case.name)) as temporary:
            np.save(temporary, arrays[name])
    counts = np.bincount(arrays["labels"].ravel(), minlength=len(job.classes)).tolist()
    written = {
        "array_voxels": dict(zip(job.classes, counts, strict=True)),
        # of the grid of the file: the array follows from it, and scores do not from the array
        "label_sha256": hashlib.sha256(reference.tobytes()).hexdigest(),
    }
    files.write_json(note, {"key": key} | written)
    return replace(prepared, **written)


def _arrays(
    image: np.ndarray, reference: np.ndarray, case: PreparedCase, choices: Choices
) -> dict[str, np.ndarray]:
    """Cropped, then normalised, then resampled, as nnU-Net does it."""
    image, label = (transform.cropped(array, case.box) for array in (image, reference))
    image = transform.normalise(image, choices)
    if label.shape != case.shape:
        import torch

        grids = case.shape, case.spacing, case.array_spacing
        image = transform.resample(torch.from_numpy(image), *grids).numpy()
        label = transform.resample_label(label, *grids)
    label = np.ascontiguousarray(label)
    voxels = foreground(label)
    indices = np.concatenate(voxels) if voxels else np.empty(0, np.uint32)
    return {"images": image, "labels": label, "references": reference, "foreground": indices}


def _remember(path: Path, key: str, found: Examination) -> None:
    """What an examination found, for the next call."""
    facts, small = found.facts, found.thumbnail
    assert facts is not None and small is not None and found.affine is not None
    text = {
        "key": key,
        "kinds": found.findings.kinds,
        "files": found.findings.files,
        "image_sha256": found.image_sha256,
        "label_sha256": found.label_sha256,
        "facts": {"shape": facts.shape, "spacing": facts.spacing, "box": facts.box},
        "counts": list(facts.counts.items()),
    }
    files.write_arrays(
        path,
        {
            "text": np.frombuffer(json.dumps(text).encode(), np.uint8),
            "affine": found.affine,
            "samples": facts.samples,
            "image": small.image,
            "label": small.label,
        },
    )


def _remembered(path: Path, key: str, case: Case) -> Examination | None:
    """The examination of the same bytes by the same code, if it is there and whole."""
    try:
        with np.load(path) as stored:
            text = json.loads(stored["text"].tobytes())
            if text["key"] != key:
                return None
            affine, samples, image, label = (
                stored[name] for name in ("affine", "samples", "image", "label")
            )
            facts = _frozen(text["facts"])
            found = Examination(case, affine=affine, facts=Facts(
                **facts, counts=dict(text["counts"]), samples=samples
            ), thumbnail=Thumbnail(case.name, facts["shape"], affine, image, label),
                image_sha256=text["image_sha256"], label_sha256=text["label_sha256"])  # fmt: skip
            found.findings.files = text["files"]
            for kind, names in text["kinds"].items():
                found.findings.kinds[kind] += map(tuple, names)
            return found
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error):
        return None


def _bytes(case: Case) -> list[str]:
    """Digest of each file; empty for one that cannot be read, of which `examine` will tell."""
    digests = []
    for path in (*case.images, case.label):
        try:
            with open(path, "rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError:
            digests.append("")
    return digests


def _code() -> str:
    """Digest of the code whose results are remembered."""
    modules = ("choices", "dataset", "evidence", "fingerprint", "nifti", "prepare", "transform")
    return provenance.code_sha256(Path(__file__).with_name(f"{name}.py") for name in modules)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write_json(prepared: Prepared) -> None:
    content = asdict(prepared)
    del content["root"]
    for case in content["cases"]:  # what the folder tells
        for key in ("dataset", "root", "source"):
            del case[key]
    files.write_json(prepared.root / "prepared.json", content)


def _frozen(content: Any) -> Any:
    """JSON as the dataclasses hold it: tuples in place of lists."""
    if isinstance(content, list):
        return tuple(map(_frozen, content))
    if isinstance(content, dict):
        return {key: _frozen(value) for key, value in content.items()}
    return content


def _array(root: Path, folder: str, name: str) -> Path:
    return root / folder / f"{name}.npy"


def _remove_others(prepared: Prepared) -> None:
    """Arrays of cases that are gone, and references that no case needs any more."""
    kept = {case.source for case in prepared.cases}
    moved = {case.source for case in prepared.cases if case.moved}
    for folder in ("cases", *ARRAYS):
        for path in (prepared.root / folder).glob("*.*"):
            if path.name.rpartition(".")[0] not in (moved if folder == "references" else kept):
                path.unlink()
