"""Read one NIfTI file completely, or say in one line why it cannot be read."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from workflow.data.faults import DataError

ENDINGS = (".nii.gz", ".nii")


def without_ending(name: str) -> str:
    """File name without .nii.gz or .nii."""
    for ending in ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels as stored (scaled where the header says so) and the 4 x 4 affine, in mm.

    The file is read to its very end: the checksum of a gzip stream stands in its last eight bytes,
    and a reader that stops after the last voxel never compares it.

    Raises:
        DataError: missing, truncated or damaged file, not NIfTI, or a degenerate affine.
    """
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{path}: expected a NIfTI file (.nii or .nii.gz)")
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except EOFError:
        raise DataError(f"{path}: truncated, the gzip stream ends too early") from None
    except gzip.BadGzipFile as error:
        if "CRC" in str(error) or "length" in str(error):
            raise DataError(f"{path}: damaged, the gzip checksum does not match") from None
        raise DataError(f"{path}: not a gzip file, expected NIfTI (.nii.gz)") from None
    except zlib.error as error:
        raise DataError(f"{path}: damaged, the gzip stream does not decompress ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return _decode(path, content)


def _decode(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine of the bytes of an uncompressed NIfTI-1 or NIfTI-2 file."""
    header_size = content[:4]
    nifti2 = header_size in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # 540, either byte order
    kind = nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image
    try:
        image = kind.from_bytes(content)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, EOFError, OSError):
        raise DataError(f"{path}: not a NIfTI file, expected a NIfTI header") from None
    try:
        voxels = np.asanyarray(image.dataobj)
    except (ValueError, OSError, EOFError):
        raise DataError(
            f"{path}: truncated, fewer voxels than the header's shape {image.shape} needs"
        ) from None
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise DataError(f"{path}: the affine is not invertible, expected three axes in mm")
    if voxels.dtype.kind not in "biuf":
        raise DataError(f"{path}: voxels of type {voxels.dtype}, expected real numbers")
    return voxels, affine
