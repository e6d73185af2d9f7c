"""Write the semi-synthetic data set: real anatomy, drawn lesions, a Decathlon folder of NIfTI.

The anatomy is the MNI152 template (T1, grey and white matter) that nilearn carries, moved and
smoothly deformed for each subject and rendered in two contrasts. The lesions have three nested
classes, as gliomas have: oedema around an enhancing rim around a necrotic core. The imbalance of
the classes and the share of subjects that lack one are dials here, which no real data offer.

A subject depends on the settings and on its own number only, so a larger phantom begins with the
subjects of a smaller one.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workflow.data.faults import DataError

CLASSES = ("edema", "necrotic core", "enhancing rim")
CHANNELS = ("T1 with contrast agent", "FLAIR")
TITLE = "Semi-synthetic lesion phantom"
UNITS = 1000  # stored integer of the white matter of the unchanged template in T1

# Brightness by contrast (T1 with agent, FLAIR); white matter in T1 is 1.
TISSUES = {"white": (1.00, 0.60), "grey": (0.68, 0.80), "fluid": (0.30, 0.18)}
LESION = {"edema": (0.78, 1.10), "necrotic core": (0.35, 0.50), "enhancing rim": (1.60, 0.90)}

NOTICE = """\
{title}
{underline}

The images of this folder are computer-made. Their anatomy is derived from the ICBM 2009a nonlinear
symmetric average brain (MNI152: T1, grey-matter and white-matter maps, as carried by nilearn),
resampled, deformed and rendered anew; the lesions are drawn and are no patient's. For research on
methods only, never for diagnosis. The templates come with this notice:

Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and its
documentation for any purpose and without fee is hereby granted, provided that the above copyright
notice appear in all copies. The authors and McGill University make no representations about the
suitability of this software for any purpose. It is provided "as is" without express or implied
warranty. The authors are not responsible for any data loss, equipment damage, property loss, or
injury to subjects or patients resulting from the use or misuse of this software package.

Source: https://nist.mni.mcgill.ca/icbm-152-nonlinear-atlases-2009/
V. S. Fonov, A. C. Evans, R. C. McKinstry, C. R. Almli, D. L. Collins: Unbiased nonlinear average
age-appropriate brain templates from birth to adulthood. NeuroImage 47, S102 (2009).
V. S. Fonov, A. C. Evans, K. Botteron, C. R. Almli, R. C. McKinstry, D. L. Collins: Unbiased average
age-appropriate atlases for pediatric studies. NeuroImage 54, 313-327 (2011).
D. L. Collins, A. P. Zijdenbos, W. F. C. Baare, A. C. Evans: ANIMAL+INSECT: improved cortical
structure segmentation. Information Processing in Medical Imaging, LNCS 1613, 210-223 (1999).
"""


@dataclass(frozen=True)
class PhantomSettings:
    """The dials of the phantom.

    Lengths are in mm, brightness in units of white matter in T1.

    Attributes:
        subjects: number of volumes, one a subject.
        shape: voxels along x, y and z.
        spacing: edge of a voxel.
        seed: of everything that is drawn.
        prevalence: share of the subjects that have the class at all.
        lesions: smallest and largest number of lesions of a subject.
        lesion_volume: median volume of all lesions of a subject together, in ml.
        lesion_spread: standard deviation of that volume's logarithm.
        core_share: mean volume of core and rim within the lesion.
        rim_thickness: mean thickness of the rim around the core.
        irregularity: how far the outlines stray from ellipsoids; 0 gives ellipsoids.
        contrast: scale of the difference between lesion and tissue.
        contrast_spread: how much lesion and tissue brightness vary between subjects.
        texture: uneven brightness within tissue and lesion.
        distractors: mean number of bright spots that are not lesions.
        noise: standard deviation of the Rician noise.
        bias: how far the receiver's field departs from 1.
        deformation: standard deviation of the smooth displacement.
    """

    # Read by pydantic where a study holds these settings: a misspelt dial is an error there.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    subjects: int = 120
    shape: tuple[int, int, int] = (48, 56, 48)
    spacing: float = 4.0
    seed: int = 2009
    prevalence: dict[str, float] = field(
        default_factory=lambda: {"edema": 1.0, "necrotic core": 0.84, "enhancing rim": 0.69}
    )
    lesions: tuple[int, int] = (1, 3)
    lesion_volume: float = 80.0
    lesion_spread: float = 0.35
    core_share: float = 0.28
    rim_thickness: float = 6.0
    irregularity: float = 0.5
    contrast: float = 1.0
    contrast_spread: float = 0.1
    texture: float = 0.04
    distractors: float = 3.0
    noise: float = 0.06
    bias: float = 0.2
    deformation: float = 4.0

    def __post_init__(self) -> None:
        faults = []
        if self.subjects < 1:
            faults.append(f"subjects must be 1 or more, not {self.subjects}")
        if self.seed < 0:
            faults.append(f"seed must be 0 or more, not {self.seed}")
        if len(self.shape) != 3 or min(self.shape) < 8:
            faults.append(f"shape must be three lengths of 8 voxels or more, not {self.shape}")
        if not 1 <= self.spacing <= 12:
            faults.append(f"spacing must lie between 1 and 12 mm, not {self.spacing}")
        if set(self.prevalence) != set(CLASSES):
            faults.append(
                f"prevalence needs {', '.join(CLASSES)}, not {', '.join(self.prevalence) or 'none'}"
            )
        elif not all(0 <= share <= 1 for share in self.prevalence.values()):
            faults.append(f"prevalence must lie between 0 and 1, not {self.prevalence}")
        if len(self.lesions) != 2 or not 1 <= self.lesions[0] <= self.lesions[1]:
            faults.append(f"lesions must be two numbers, 1 <= lowest <= highest: {self.lesions}")
        if not 0 < self.core_share < 1:
            faults.append(f"core_share must lie between 0 and 1, not {self.core_share}")
        for name in ("lesion_volume", "rim_thickness"):
            if getattr(self, name) <= 0:
                faults.append(f"{name} must be more than 0, not {getattr(self, name)}")
        for name in (
            *("lesion_spread", "irregularity", "contrast", "contrast_spread", "texture"),
            *("distractors", "noise", "bias", "deformation"),
        ):
            if getattr(self, name) < 0:
                faults.append(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not self.bias < 1:
            faults.append(f"bias must be less than 1, not {self.bias}")
        if faults:
            raise ValueError("; ".join(faults))


def write(
    settings: PhantomSettings,
    root: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the data set to `root`: dataset.json, imagesTr/, labelsTr/ and NOTICE.

    Everything is written into a folder beside `root`, which is renamed at the end. A phantom that
    stands there is replaced, anything else is left alone.

    Args:
        settings: the dials; the same settings give the same bytes.
        root: the folder to write.
        progress: called with the subjects done and the subjects in all.

    Raises:
        DataError: `root` holds something else; the templates are not installed.
    """
    root = Path(root)
    if root.exists() and not _replaceable(root):
        raise DataError(f"{root}: exists and is not a phantom, expected a new or empty folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        part.chmod(0o755)  # mkdtemp makes folders for one user only
        for folder in ("imagesTr", "labelsTr"):
            (part / folder).mkdir()
        affine = _affine(settings)
        for index in range(settings.subjects):
            image, label = make_subject(settings, index)
            name = subject_name(index)
            _save(part / "imagesTr" / f"{name}.nii.gz", np.moveaxis(image, 0, -1), affine)
            _save(part / "labelsTr" / f"{name}.nii.gz", label, affine)
            if progress:
                progress(index + 1, settings.subjects)
        notice = NOTICE.format(title=TITLE, underline="=" * len(TITLE))
        (part / "NOTICE").write_text(notice, encoding="utf-8")
        description = json.dumps(_description(settings), indent=1) + "\n"
        (part / "dataset.json").write_text(description, encoding="utf-8")
        if root.exists():
            shutil.rmtree(root)
        os.rename(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def make_subject(settings: PhantomSettings, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (channels, x, y, z) int16 and label (x, y, z) uint8 of one subject."""
    rng = np.random.default_rng([settings.seed, index])
    tissue = _anatomy(settings, rng)
    present = _present(settings, index)
    label, amount = _lesions(settings, rng, tissue, present)
    image = _render(settings, rng, tissue, amount)
    return image, label


def subject_name(index: int) -> str:
    """Name of the case, and of the subject, with the number `index`."""
    return f"phantom_{index + 1:03d}"


def _present(settings: PhantomSettings, index: int) -> frozenset[str]:
    """The classes that the subject has.

    Each class walks round a circle in irrational steps and is present while below its prevalence.
    The golden ratio and the roots of 2 and 3 spread the steps most evenly, one class by one and in
    pairs, so that any number of subjects has the prevalence to within a subject or two.
    Independent draws would miss it by several in a hundred.
    """
    offsets = np.random.default_rng(settings.seed).random(len(CLASSES))
    steps = np.array([math.sqrt(3), math.sqrt(2), (math.sqrt(5) - 1) / 2])
    place = (offsets + index * steps) % 1
    return frozenset(
        name for name, at in zip(CLASSES, place, strict=True) if at < settings.prevalence[name]
    )


# --- anatomy ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _templates(spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """White, grey and brain maps and the T1 template, smoothed to the voxel, and their affine.

    Without the smoothing, sampling every few millimetres would alias the cortex.
    """
    try:
        from nilearn.datasets import (
            load_mni152_gm_template,
            load_mni152_template,
            load_mni152_wm_template,
        )
    except ImportError as error:
        raise DataError(f"the phantom needs nilearn for its MNI152 templates ({error})") from None
    from scipy.ndimage import gaussian_filter

    t1 = load_mni152_template(resolution=1)
    maps = [load_mni152_wm_template(resolution=1), load_mni152_gm_template(resolution=1), t1]
    affine = np.array(t1.affine)
    arrays = [np.asanyarray(image.dataobj, dtype=np.float32) for image in maps]
    arrays.insert(2, (arrays[2] > 0).astype(np.float32))
    sigma = 0.4 * spacing  # full width at half maximum a little under a voxel, on the 1 mm grid
    every = 2
    smoothed = np.stack([gaussian_filter(a, sigma)[::every, ::every, ::every] for a in arrays])
    affine[:3, :3] *= every
    return smoothed, affine


def _anatomy(settings: PhantomSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Maps of white and grey matter, fluid, brain and T1, in the space of the subject."""
    from scipy.ndimage import map_coordinates

    templates, affine = _templates(settings.spacing)
    centre = affine[:3, :3] @ (np.array(templates.shape[1:]) - 1) / 2 + affine[:3, 3]
    angles = np.deg2rad(rng.normal(0, 4, size=3))
    stretch = rng.normal(1, 0.05, size=3)
    shift = rng.normal(0, 3, size=3)
    points = _grid(settings)
    points = np.einsum("ij,jxyz->ixyz", _rotation(angles) * stretch, points)
    points += shift[:, None, None, None]
    for axis in range(3):
        points[axis] += settings.deformation * _smooth(settings, rng, 50.0)
    voxels = points + (centre - affine[:3, 3])[:, None, None, None]
    voxels /= np.diag(affine)[:3][:, None, None, None]
    white, grey, brain, t1 = (
        map_coordinates(template, voxels, order=1, mode="constant") for template in templates
    )
    fluid = np.clip(brain - white - grey, 0, None)
    return {"white": white, "grey": grey, "fluid": fluid, "brain": brain, "t1": t1}


def _grid(settings: PhantomSettings) -> np.ndarray:
    """Voxel centres (3, x, y, z) in mm, the middle of the volume at 0."""
    return _cached_grid(tuple(settings.shape), settings.spacing)


@functools.lru_cache(maxsize=1)
def _cached_grid(shape: tuple[int, ...], spacing: float) -> np.ndarray:
    axes = [(np.arange(length) - (length - 1) / 2) * spacing for length in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def _affine(settings: PhantomSettings) -> np.ndarray:
    affine = np.diag([settings.spacing] * 3 + [1.0])
    affine[:3, 3] = -(np.array(settings.shape) - 1) / 2 * settings.spacing
    return affine


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, then y, then z (radians)."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _smooth(settings: PhantomSettings, rng: np.random.Generator, scale: float) -> np.ndarray:
    """A random field (x, y, z) of mean 0 and deviation about 1 that varies over `scale` mm.

    Normal numbers on a lattice of that width, joined by cubic B-splines.
    """
    bases = [_spline_basis(length * settings.spacing / scale, length) for length in settings.shape]
    lattice = rng.standard_normal([basis.shape[1] for basis in bases])
    smoothed = np.einsum("ai,ijk->ajk", bases[0], lattice)
    smoothed = np.einsum("bj,ajk->abk", bases[1], smoothed)
    smoothed = np.einsum("ck,abk->abc", bases[2], smoothed)
    return smoothed / 0.479**1.5  # 0.479 is the mean over all places of the sum of squared weights


def _spline_basis(extent: float, length: int) -> np.ndarray:
    """Weights (length, nodes) of the uniform cubic B-spline over `extent` lattice steps."""
    places = (np.arange(length) + 0.5) * extent / length
    nodes = np.arange(-1, math.ceil(extent) + 2)
    away = np.abs(places[:, None] - nodes)
    near = 2 / 3 - away**2 + away**3 / 2
    far = np.clip(2 - away, 0, None) ** 3 / 6
    return np.where(away < 1, near, far)


# --- lesions ---------------------------------------------------------------------------------


def _lesions(
    settings: PhantomSettings,
    rng: np.random.Generator,
    tissue: Mapping[str, np.ndarray],
    present: frozenset[str],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Label, and how much of each voxel each class fills.

    Lesions are drawn until every class that the subject has fills at least one voxel.
    """
    wanted = {CLASSES.index(name) + 1 for name in present}
    for _ in range(100):
        amount = _draw_lesions(settings, rng, tissue, present)
        filled = np.stack([1 - sum(amount.values()), *amount.values()])
        label = filled.argmax(axis=0).astype(np.uint8)
        if set(np.unique(label)) - {0} == wanted:
            return label, amount
    raise DataError(
        f"phantom: no lesion with {', '.join(sorted(present))} fits a voxel of {settings.spacing} "
        f"mm, expected a larger lesion_volume ({settings.lesion_volume} ml) or rim_thickness"
    )


def _draw_lesions(
    settings: PhantomSettings,
    rng: np.random.Generator,
    tissue: Mapping[str, np.ndarray],
    present: frozenset[str],
) -> dict[str, np.ndarray]:
    amount = {name: np.zeros(settings.shape) for name in CLASSES}
    if not present:
        return amount
    number = int(rng.integers(settings.lesions[0], settings.lesions[1] + 1))
    total = settings.lesion_volume * math.exp(settings.lesion_spread * rng.standard_normal())
    shares = rng.dirichlet(np.full(number, 3.0))
    places = np.flatnonzero(tissue["white"] > 0.6)
    for share in shares:
        place = rng.choice(places)
        centre = _grid(settings)[:, *np.unravel_index(place, settings.shape)]
        radius = (share * total * 1000 * 3 / (4 * math.pi)) ** (1 / 3)
        distance = _distance(settings, rng, centre, radius)
        whole = _fill(settings, radius - distance) * tissue["brain"]
        # Core and rim sit off the middle, with an outline of their own.
        inner_radius = radius * (settings.core_share * rng.uniform(0.7, 1.3)) ** (1 / 3)
        inner_centre = centre + rng.normal(0, 0.12 * radius, size=3)
        inner_distance = _distance(settings, rng, inner_centre, inner_radius)
        thickness = settings.rim_thickness * rng.uniform(0.8, 1.2)
        core_radius = max(inner_radius - thickness, 0.45 * inner_radius)
        inner = _fill(settings, inner_radius - inner_distance) * tissue["brain"]
        core = np.minimum(_fill(settings, core_radius - inner_distance), inner)
        _add(amount, present, whole, inner, core)
    return amount


def _add(
    amount: dict[str, np.ndarray],
    present: frozenset[str],
    whole: np.ndarray,
    inner: np.ndarray,
    core: np.ndarray,
) -> None:
    """Put one lesion over what is there.

    A missing class leaves its place to its neighbour: without a core the (smaller) inside enhances
    throughout, without a rim the core reaches the oedema, without oedema nothing surrounds it.
    """
    has_core, has_rim = "necrotic core" in present, "enhancing rim" in present
    parts = {"necrotic core": core * has_core}
    parts["enhancing rim"] = (inner - core if has_core else core) * has_rim
    taken = parts["necrotic core"] + parts["enhancing rim"]
    parts["edema"] = np.clip(whole - taken, 0, None) * ("edema" in present)
    left = 1 - np.clip(sum(parts.values()), 0, 1)
    for name in CLASSES:
        amount[name] *= left
        amount[name] += parts[name]


def _distance(
    settings: PhantomSettings, rng: np.random.Generator, centre: np.ndarray, radius: float
) -> np.ndarray:
    """Distance (mm) from a centre in the metric of a random ellipsoid, unsettled by a field."""
    axes = np.exp(rng.normal(0, 0.18, size=3))
    axes /= np.prod(axes) ** (1 / 3)  # the volume stays
    turn = _rotation(rng.uniform(0, 2 * np.pi, size=3))
    offset = _grid(settings) - centre[:, None, None, None]
    turned = np.einsum("ij,jxyz->ixyz", turn / axes[:, None], offset)
    distance = np.sqrt((turned**2).sum(axis=0))
    rough = _smooth(settings, rng, max(0.9 * radius, 2.5 * settings.spacing))
    return distance + 0.5 * settings.irregularity * radius * rough


def _fill(settings: PhantomSettings, depth: np.ndarray) -> np.ndarray:
    """Share of a voxel inside an outline that lies `depth` mm away: the partial volume."""
    return np.clip(0.5 + depth / settings.spacing, 0, 1)


# --- images ----------------------------------------------------------------------------------


def _render(
    settings: PhantomSettings,
    rng: np.random.Generator,
    tissue: Mapping[str, np.ndarray],
    amount: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The two contrasts (channels, x, y, z) as stored integers."""
    healthy = 1 - sum(amount.values())
    spots = _spots(settings, rng, tissue)
    image = np.empty((len(CHANNELS), *settings.shape), dtype=np.int16)
    for channel in range(len(CHANNELS)):
        vary = 1 + 0.5 * settings.contrast_spread * rng.standard_normal(len(TISSUES))
        signal = sum(
            tissue[name] * levels[channel] * factor
            for (name, levels), factor in zip(TISSUES.items(), vary, strict=True)
        )
        if channel == 0:  # half of the real template keeps its deep grey nuclei and vessels
            signal = 0.5 * signal + 0.5 * tissue["t1"] * TISSUES["white"][0] / 0.85
        white = TISSUES["white"][channel]
        signal += spots[channel]
        lesion = np.zeros(settings.shape)
        for name in CLASSES:
            offset = settings.contrast * (LESION[name][channel] - white)
            offset *= 1 + 2 * settings.contrast_spread * rng.standard_normal()
            lesion += amount[name] * (white + offset)
        signal = signal * healthy + lesion
        signal *= 1 + settings.texture * _smooth(settings, rng, 12.0)
        field_ = _smooth(settings, rng, 120.0)
        signal *= 1 + settings.bias * field_ / np.abs(field_).max()
        real = signal + settings.noise * rng.standard_normal(settings.shape)
        imaginary = settings.noise * rng.standard_normal(settings.shape)
        magnitude = np.sqrt(real**2 + imaginary**2)
        image[channel] = np.clip(np.rint(UNITS * magnitude), 0, np.iinfo(np.int16).max)
    return image


def _spots(
    settings: PhantomSettings, rng: np.random.Generator, tissue: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Bright spots that are no lesion (channels, x, y, z).

    Vessels that take up the agent shine in T1, ageing white matter in FLAIR; a network that only
    looks for bright voxels is wrong about both.
    """
    spots = np.zeros((len(CHANNELS), *settings.shape))
    for channel, where in ((0, "grey"), (1, "white")):
        places = np.flatnonzero(tissue[where] > 0.5)
        for place in rng.choice(places, size=rng.poisson(settings.distractors / 2)):
            centre = _grid(settings)[:, *np.unravel_index(place, settings.shape)]
            radius = rng.uniform(3.0, 6.0)
            depth = radius - _distance(settings, rng, centre, radius)
            spots[channel] += rng.uniform(0.2, 0.45) * _fill(settings, depth)
    return spots * tissue["brain"]


# --- files -----------------------------------------------------------------------------------


def _save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """NIfTI with a gzip header that carries neither time nor name, so that bytes repeat."""
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def _description(settings: PhantomSettings) -> dict[str, Any]:
    names = [subject_name(index) for index in range(settings.subjects)]
    return {
        "name": TITLE,
        "description": "MNI152 anatomy, deformed, with drawn lesions of three nested classes",
        "reference": "Templates: Fonov et al. 2009 and 2011, Collins et al. 1999",
        "licence": "MNI152 templates: see NOTICE",
        "release": "1.0",
        "tensorImageSize": "4D",
        "modality": {str(index): name for index, name in enumerate(CHANNELS)},
        "labels": {str(index): name for index, name in enumerate(("background", *CLASSES))},
        "numTraining": settings.subjects,
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names
        ],
        "test": [],
        "phantom": asdict(settings),
    }


def _replaceable(root: Path) -> bool:
    """Empty, or a phantom of ours: other people's data are never deleted."""
    if not root.is_dir():
        return False
    entries = {entry.name for entry in root.iterdir()}
    if not entries:
        return True
    notice = root / "NOTICE"
    ours = notice.is_file() and notice.read_text(encoding="utf-8").startswith(TITLE)
    return ours and entries <= {"NOTICE", "dataset.json", "imagesTr", "labelsTr"}
