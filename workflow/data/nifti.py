"""Read one NIfTI file completely, or say in one line why it cannot be read."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from workflow.data.faults import DataError

ENDINGS = (".nii.gz", ".nii")
AGAIN = "copy or download it again"
PIECE = 2**24  # bytes unpacked at a time: memory grows with what is there, not with what is claimed
HARMLESS = ("qfac", "bitpix", "not SPM compatible")  # of nibabel's diagnosis: nothing depends on it
FARTHEST = 1e9  # mm from the scanner's centre; a number of the affine beyond it is damaged
EDGES = (0.01, 100.0)  # mm, of a voxel; outside them the unit is probably another one
NIFTI1 = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c")  # how it begins, in either byte order
DISGUISES = {  # how files begin that are often found under the name of another
    b"version https://git-lfs": "a pointer of Git LFS, fetch the file with `git lfs pull`",
    b"<": "a web page or XML, download the file again",
    b"PK\x03\x04": "a ZIP archive, unpack it",
    b"NRRD": "an NRRD file, convert it to NIfTI",
    b"\x1f\x8b": "a gzip stream, name it .nii.gz or, if compressed twice, unpack it",
    **dict.fromkeys(NIFTI1, "uncompressed NIfTI, rename it to .nii or compress it with gzip"),
}


class Nifti(NamedTuple):
    """A file that could be read.

    `scaled` says that the header changes the stored numbers by a slope or an intercept. `doubts`
    are what the header says and no other part of it confirms: pairs of a kind (the same words for
    every file) and the evidence.
    """

    voxels: np.ndarray
    affine: np.ndarray
    scaled: bool
    doubts: tuple[tuple[str, str], ...]


def without_ending(name: str) -> str:
    """File name without .nii.gz or .nii."""
    for ending in ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def read_nifti(path: Path) -> Nifti:
    """Voxels as stored (scaled where the header says so) and the 4 x 4 affine, in mm.

    The file is read to its very end: the checksum of a gzip stream stands in its last eight bytes,
    and a reader that stops after the last voxel never compares it. No more is read than the header
    announces, and no memory is taken for what it announces but the file does not hold.

    Raises:
        DataError: missing, truncated or damaged file, not NIfTI, or a degenerate affine.
    """
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{path}: expected a NIfTI file (.nii or .nii.gz)")
    unpack = gzip.open if path.name.endswith(".gz") else open
    try:
        with unpack(path, "rb") as stream:
            return _decode(path, stream)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except EOFError:
        raise DataError(f"{path}: truncated, the gzip stream ends too early; {AGAIN}") from None
    except gzip.BadGzipFile as error:
        raise DataError(f"{path}: {_bad_gzip(path, error)}") from None
    except zlib.error as error:
        raise DataError(
            f"{path}: damaged, the gzip stream does not decompress ({error}); {AGAIN}"
        ) from None
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory, crop or resample it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _bad_gzip(path: Path, error: gzip.BadGzipFile) -> str:
    if "CRC" in str(error) or "length" in str(error):
        return f"damaged, the gzip checksum does not match; {AGAIN}"
    with open(path, "rb") as stream:
        begin = stream.read(32)
    if begin[:2] != b"\x1f\x8b":
        kind = _disguise(begin)
        if kind:
            return f"not a gzip file but {kind}"
        return f"not a gzip file, expected NIfTI (.nii.gz); {AGAIN}"
    if "Unknown" in str(error):
        return f"damaged, the header of the gzip stream is broken; {AGAIN}"
    return f"damaged, something follows the end of the gzip stream; {AGAIN}"


def _disguise(begin: bytes) -> str:
    """What the file is instead, and what to do, if its first bytes tell."""
    return next((said for start, said in DISGUISES.items() if begin.startswith(start)), "")


def _decode(path: Path, stream: io.BufferedIOBase) -> Nifti:
    """Voxels and affine from the bytes of an uncompressed NIfTI-1 or NIfTI-2 file."""
    begin = stream.read(540)
    if not begin:
        raise DataError(f"{path}: empty file; {AGAIN}")
    nifti2 = begin[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # 540, either byte order
    kind = nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image
    size = kind.header_class.sizeof_hdr
    if len(begin) < size:
        raise DataError(
            f"{path}: not a NIfTI file, {len(begin)} bytes are less than a header; {AGAIN}"
        )
    header = kind.header_class(begin[:size], check=False)
    needed = _needed(path, header, begin)
    content = bytearray(begin)
    while len(content) < needed and (piece := stream.read(min(PIECE, needed - len(content)))):
        content += piece
    if len(content) < needed:
        shape = " x ".join(map(str, header.get_data_shape()))
        raise DataError(
            f"{path}: truncated, fewer voxels than the header's shape {shape} needs "
            f"({len(content)} bytes of {needed}), or the header is damaged; {AGAIN}"
        )
    if len(content) > needed or stream.read(1):
        shape = " x ".join(map(str, header.get_data_shape()))
        raise DataError(
            f"{path}: more voxels than the header's shape {shape} and type "
            f"{header.get_data_dtype()} describe, so one of them is damaged; {AGAIN}"
        )
    try:
        with LoggingOutputSuppressor():  # what it would log is judged in _needed
            image = kind.from_bytes(bytes(content))
        voxels = np.asanyarray(image.dataobj)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: not a NIfTI file or damaged, the header is wrong: {error}; {AGAIN}"
        ) from None
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.abs(affine).max() < FARTHEST or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(
            f"{path}: the affine is not invertible (an axis of length 0, NaN or infinite); "
            "expected three axes in mm, set them in the header"
        )
    slope, intercept = (float(header[key]) for key in ("scl_slope", "scl_inter"))
    scaled = math.isfinite(slope) and slope != 0 and (slope, intercept) != (1, 0)
    return Nifti(voxels, affine, scaled, tuple(_doubts(image.header, affine, image.shape)))


def _needed(path: Path, header: nibabel.Nifti1Header, begin: bytes) -> int:
    """The bytes that a file with this header has."""
    wrong = [
        line
        for line in header.diagnose_binaryblock(begin[: header.sizeof_hdr]).splitlines()
        if not any(word in line for word in HARMLESS)
    ]
    if wrong:
        kind = "a DICOM file, convert it with dcm2niix" if begin[128:132] == b"DICM" else ""
        if not kind and not begin.startswith(NIFTI1):
            kind = _disguise(begin)
        raise DataError(
            f"{path}: not NIfTI but {kind}"
            if kind
            else f"{path}: not a NIfTI file, or its header is damaged: {'; '.join(wrong)}; correct "
            f"it or {AGAIN}"
        )
    offset, dtype = float(header["vox_offset"]), header.get_data_dtype()
    shape = [int(length) for length in header.get_data_shape()]
    if dtype.kind not in "biuf":
        raise DataError(f"{path}: voxels of type {dtype}, expected real numbers; convert it")
    if header["magic"].item() != header.single_magic or offset < header.single_vox_offset:
        raise DataError(
            f"{path}: the header says that the voxels are in another file or begin at byte "
            f"{offset:g}, expected one file (n+1) and {header.single_vox_offset} or more; save it "
            "as one .nii file"
        )
    if not math.isfinite(offset) or offset != int(offset):
        raise DataError(
            f"{path}: damaged, the header says that the voxels begin at byte {offset}; {AGAIN}"
        )
    if not shape or min(shape) < 1:
        raise DataError(f"{path}: no voxels, the header's shape is {shape}; export it again")
    return int(offset) + math.prod(shape) * dtype.itemsize


def _doubts(
    header: nibabel.Nifti1Header, affine: np.ndarray, shape: tuple[int, ...]
) -> list[tuple[str, str]]:
    """Where the header contradicts itself, in a way that real files do and that still can be read.

    The sform and the qform may differ by half a voxel at a corner: a qform holds no shear.
    """
    doubts = []
    edges = voxel_sizes(affine)
    stored = np.abs(np.asarray(header["pixdim"][1:4], dtype=float))
    unit = int(header["xyzt_units"]) & 7
    if int(header["sform_code"]) and int(header["qform_code"]):
        worst = _apart(header, affine, shape)
        if not worst <= 0.5 * edges.min():
            doubts.append(
                (
                    "have two positions in their headers, sform and qform (the sform is used; "
                    "remove the wrong one)",
                    f"they are up to {worst:.3g} mm apart",
                )
            )
    if not np.allclose(edges, stored, rtol=0.01):
        sizes = " x ".join(f"{edge:.3g}" for edge in edges)
        pixdim = " x ".join(f"{edge:.3g}" for edge in stored)
        doubts.append(
            (
                "have a voxel size in their headers that the affine contradicts (the affine is "
                "used; correct the header)",
                f"{pixdim} mm in pixdim, {sizes} mm in the affine",
            )
        )
    if unit not in (0, 2):
        name = {1: "metre", 3: "micrometre"}.get(unit, f"unknown ({unit})")
        doubts.append(
            ("give another unit than mm (mm is assumed; convert them)", f"the unit is {name}")
        )
    if not (EDGES[0] <= edges.min() and edges.max() <= EDGES[1]):
        sizes = " x ".join(f"{edge:.3g}" for edge in edges)
        doubts.append(("have an implausible voxel size (is it in mm?)", f"{sizes} mm"))
    return doubts


def _apart(header: nibabel.Nifti1Header, affine: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far the qform moves a corner of the volume from where the affine has it, in mm.

    Infinite where its quaternion is no rotation.
    """
    try:
        with np.errstate(all="ignore"):
            other = header.get_qform()
    except (ValueError, HeaderDataError):
        return math.inf
    ends = np.array(np.meshgrid(*((0, length - 1) for length in (*shape, 1, 1)[:3])))
    corners = ends.reshape(3, -1).T
    with np.errstate(all="ignore"):
        apart = apply_affine(affine, corners) - apply_affine(other, corners)
        return float(np.linalg.norm(apart, axis=1).max())
