"""A small data set, and every fault of `FAULTS` made in a copy of it as it is made in real life.

A fault is a function that damages the folder. It stands under the file that must be named and the
words that must be said, of the fault and of the remedy; `warned` are those that are only likely.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (16, 14, 12)
IMAGE, LABEL = "imagesTr/case_2.nii.gz", "labelsTr/case_2.nii.gz"
JSON = "dataset.json"
AGAIN = "copy or download it again"


def write(root: Path) -> Path:
    """Four cases of two channels and two nested classes: a lesion somewhere in textured tissue."""
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    places = [(4, 4, 4), (11, 5, 7), (5, 9, 8), (10, 9, 3)]
    grid = np.indices(SHAPE)
    for number, place in enumerate(places, start=1):
        rng = np.random.default_rng(number)
        away = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(grid, place, strict=True)))
        label = (away < 3.2).astype(np.uint8) + (away < 1.8)
        channels = [
            rng.normal(500, 40, SHAPE) + change * label.astype(float) for change in (150, -120)
        ]
        image = np.stack(channels, axis=-1).astype(np.int16)
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        affine[:3, 3] = -10 * number, -12, -8
        store(root / f"imagesTr/case_{number}.nii.gz", image, affine)
        store(root / f"labelsTr/case_{number}.nii.gz", label, affine)
    training = [
        {part: f"./{part}sTr/case_{number}.nii.gz" for part in ("image", "label")}
        for number in range(1, 5)
    ]
    content = {
        "name": "small",
        "modality": {"0": "T1", "1": "FLAIR"},
        "labels": {"0": "background", "1": "rim", "2": "core"},
        "numTraining": 4,
        "training": training,
    }
    (root / JSON).write_text(json.dumps(content))
    return root


def store(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1))


@dataclass(frozen=True)
class Fault:
    name: str
    make: Callable[[Path], object]
    file: str
    words: tuple[str, ...]
    warned: bool = False


FAULTS: list[Fault] = []


def fault(file: str, *words: str, warned: bool = False) -> Callable[[Callable], Callable]:
    """Adds the decorated function, whose name is the fault's, to the table."""

    def add(make: Callable[[Path], object]) -> Callable[[Path], object]:
        listed(make.__name__, make, file, *words, warned=warned)
        return make

    return add


def listed(name: str, make: Callable, file: str, *words: str, warned: bool = False) -> None:
    FAULTS.append(Fault(name, make, file, words, warned))


# --- how files are damaged -------------------------------------------------------------------


def content(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The bytes as they lie on the disk."""

    def make(root: Path) -> None:
        (root / file).write_bytes(change((root / file).read_bytes()))

    return make


def flip(at: Callable[[int], int], bit: int = 0) -> Callable[[bytes], bytes]:
    """One bit of the byte at a place that depends on the length."""

    def change(data: bytes) -> bytes:
        damaged = bytearray(data)
        damaged[at(len(data))] ^= 1 << bit
        return bytes(damaged)

    return change


def unpacked(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The bytes within the gzip stream, which is sound again afterwards."""
    return content(file, lambda data: gzip.compress(change(gzip.decompress(data))))


def header(*fields: tuple[int, str, tuple], file: str = IMAGE) -> Callable[[Path], None]:
    """Fields of the NIfTI header: place, format, values."""

    def change(data: bytes) -> bytes:
        damaged = bytearray(data)
        for place, form, values in fields:
            struct.pack_into(f"<{form}", damaged, place, *values)
        return bytes(damaged)

    return unpacked(file, change)


def voxels(
    file: str, change: Callable[[np.ndarray], np.ndarray], dtype: Any = None
) -> Callable[[Path], None]:
    """The voxels, stored anew with the same affine."""

    def make(root: Path) -> None:
        image = nibabel.load(root / file)
        array = np.array(image.dataobj)
        store(root / file, change(array if dtype is None else array.astype(dtype)), image.affine)

    return make


def spoil(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 4, 5] = value
        return array

    return change


def affine(*files: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for file in files:
            image = nibabel.load(root / file)
            store(root / file, np.array(image.dataobj), change(image.affine))

    return make


def described(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """The content of dataset.json."""

    def make(root: Path) -> None:
        declared = json.loads((root / JSON).read_text())
        change(declared)
        (root / JSON).write_text(json.dumps(declared))

    return make


def entry(**change: Any) -> Callable[[Path], None]:
    return described(lambda declared: declared["training"][1].update(change))


def labels(value: Any) -> Callable[[Path], None]:
    return described(lambda declared: declared.update(labels=value))


def instead(file: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else under the file's name."""

    def replace(root: Path) -> None:
        (root / file).unlink()
        make(root / file)

    return replace


def renamed(name: str, part: str = "") -> Callable[[Path], None]:
    """The case under another name, in the folder and in dataset.json."""

    def make(root: Path) -> None:
        for folder in ("imagesTr", "labelsTr"):
            os.rename(root / folder / "case_2.nii.gz", root / folder / name)
        entry(image=f"imagesTr/{name}", label=f"labelsTr/{name}")(root)

    return make


def plain(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The image as .nii."""

    def make(root: Path) -> None:
        data = (root / IMAGE).read_bytes()
        (root / IMAGE).unlink()
        (root / "imagesTr/case_2.nii").write_bytes(change(data))
        entry(image="imagesTr/case_2.nii")(root)

    return make


# --- the gzip stream -------------------------------------------------------------------------

listed("bit_in_the_gzip_magic", content(IMAGE, flip(lambda size: 0)), IMAGE, "not a gzip", AGAIN)
listed("bit_in_the_gzip_method", content(IMAGE, flip(lambda size: 2)), IMAGE, "header of", AGAIN)
listed("bit_in_the_voxels", content(IMAGE, flip(lambda size: size // 2)), IMAGE, AGAIN)
listed("bit_in_the_label", content(LABEL, flip(lambda size: size * 3 // 4)), LABEL, AGAIN)
listed("bit_in_the_checksum", content(IMAGE, flip(lambda size: -8)), IMAGE, "checksum", AGAIN)
listed("bit_in_the_length", content(IMAGE, flip(lambda size: -1)), IMAGE, "checksum", AGAIN)
listed(
    "half_a_file", content(IMAGE, lambda data: data[: len(data) // 2]), IMAGE, "truncated", AGAIN
)
listed("file_without_its_end", content(LABEL, lambda data: data[:-3]), LABEL, "truncated", AGAIN)
listed("bytes_after_the_end", content(IMAGE, lambda data: data + b"end"), IMAGE, "follows", AGAIN)
listed("appended_to_itself", content(IMAGE, lambda data: data * 2), IMAGE, "more voxels", AGAIN)
listed("empty_file", content(IMAGE, lambda data: b""), IMAGE, "empty file", AGAIN)
listed("zeros", content(IMAGE, lambda data: bytes(len(data))), IMAGE, "not a gzip file", AGAIN)
listed("uncompressed_as_gz", content(IMAGE, gzip.decompress), IMAGE, "uncompressed", "rename")
listed("compressed_twice", content(IMAGE, gzip.compress), IMAGE, "compressed twice", "unpack")
listed("gzip_as_nii", plain(lambda data: data), "case_2.nii", "a gzip stream", "name it .nii.gz")
listed("nothing_inside", content(IMAGE, lambda data: gzip.compress(b"")), IMAGE, "empty", AGAIN)
listed("web_page", content(IMAGE, lambda data: b"<html>404" * 99), IMAGE, "web page", "download")
listed(
    "pointer_of_git_lfs",
    content(IMAGE, lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    IMAGE, "pointer of Git LFS", "git lfs pull",
)  # fmt: skip
listed("zip_archive", content(IMAGE, lambda data: b"PK\x03\x04" + data), IMAGE, "ZIP", "unpack it")
listed(
    "dicom",
    plain(lambda data: bytes(128) + b"DICM" + bytes(900)),
    "case_2.nii", "a DICOM file", "convert it",
)  # fmt: skip

# --- the NIfTI header ------------------------------------------------------------------------

listed("half_a_header", unpacked(IMAGE, lambda data: data[:300]), IMAGE, "less than a header")
listed("header_alone", unpacked(IMAGE, lambda data: data[:352]), IMAGE, "fewer voxels", AGAIN)
listed(
    "one_voxel_too_few",
    plain(lambda data: gzip.decompress(data)[:-2]),
    "case_2.nii", "truncated", "fewer voxels", AGAIN,
)  # fmt: skip
listed("bit_in_a_length", unpacked(IMAGE, flip(lambda size: 42, 6)), IMAGE, "fewer voxels", AGAIN)
listed("bit_in_the_number_of_axes", unpacked(IMAGE, flip(lambda size: 40, 3)), IMAGE,
       "its header is damaged: sizeof_hdr should be 348", "correct it or copy")  # fmt: skip
listed("shape_too_small", header((42, "h", (8,))), IMAGE, "more voxels", AGAIN)
listed("shape_of_terabytes", header((42, "4h", (32767,) * 4)), IMAGE, "fewer voxels", "32767")
listed("shape_with_a_zero", header((44, "h", (0,))), IMAGE, "no voxels", "export it again")
listed("shape_below_zero", header((44, "h", (-14,))), IMAGE, "no voxels", "export it again")
listed("unknown_voxel_type", header((70, "h", (5,))), IMAGE, "data code 5", AGAIN)
listed("other_voxel_type", header((70, "2h", (16, 32))), IMAGE, "fewer voxels", AGAIN)
listed("smaller_voxel_type", header((70, "2h", (2, 8))), IMAGE, "more voxels", AGAIN)
listed("complex_voxels", header((70, "2h", (32, 64))), IMAGE, "complex64", "real numbers")
listed("colours", header((70, "2h", (128, 24))), IMAGE, "real numbers", "convert")
listed("bit_in_the_nifti_magic", unpacked(IMAGE, flip(lambda size: 344)), IMAGE, "magic", AGAIN)
listed("header_of_a_pair", header((344, "3s", (b"ni1",))), IMAGE, "another file", "one .nii file")
listed("voxels_from_byte_0", header((108, "f", (0,))), IMAGE, "begin at byte 0", "352 or more")
listed("voxels_from_nowhere", header((108, "f", (np.inf,))), IMAGE, "begin at byte inf")
listed("header_size", header((0, "i", (340,))), IMAGE, "sizeof_hdr should be 348", AGAIN)
listed("edge_of_length_0", header((80, "f", (0,))), IMAGE, "pixdim", "non-zero")
listed("edge_below_0", header((84, "f", (-2,))), IMAGE, "pixdim", "positive")
listed("unknown_affine_code", header((254, "h", (77,))), IMAGE, "sform_code 77 not valid")
listed("axis_of_length_0", header((312, "4f", (0,) * 4)), IMAGE, "not invertible", "set them")
listed("affine_of_nan", header((280, "f", (np.nan,))), IMAGE, "not invertible", "set them")
listed("slope_0.999", header((112, "f", (0.999,)), file=LABEL), LABEL, "not integers", "nearest")


@fault(LABEL, "label values 256, 512 are not in dataset.json", "correct them")
def swapped_bytes(root: Path) -> None:
    image = nibabel.load(root / LABEL)
    little = np.array(image.dataobj).astype("<i2")
    store(root / LABEL, little.byteswap(), image.affine)


@fault(IMAGE, "sform and qform", "26.1 mm apart", "remove the wrong one", warned=True)
def two_positions(root: Path) -> None:
    image = nibabel.load(root / IMAGE)
    image.header.set_sform(image.affine, 1)
    moved = image.affine.copy()
    moved[0, 3] += 26.1
    image.header.set_qform(moved, 1)
    (root / IMAGE).write_bytes(gzip.compress(image.to_bytes()))


listed(
    "voxel_size_against_the_affine",
    header((80, "f", (5,))),
    IMAGE, "5 x 2 x 3 mm in pixdim, 2 x 2 x 3 mm in the affine", "correct the header",
    warned=True,
)  # fmt: skip
listed("other_unit", header((123, "b", (3,))), IMAGE, "micrometre", "convert", warned=True)
listed(
    "metres_said_to_be_mm",
    affine(IMAGE, LABEL, change=lambda matrix: np.diag([2e-3, 2e-3, 3e-3, 1])),
    IMAGE, "implausible voxel size", "0.002 x 0.002 x 0.003 mm", warned=True,
)  # fmt: skip


@fault(LABEL, "labels are scaled by their headers", "store the values", warned=True)
def scaled_label(root: Path) -> None:
    voxels(LABEL, lambda array: (array > 0).astype(np.uint8))(root)
    header((112, "2f", (2, 0)), file=LABEL)(root)


# --- the voxels of an image ------------------------------------------------------------------

listed("nan", voxels(IMAGE, spoil(np.nan), np.float32), IMAGE, "2 voxels are NaN", "replace")
listed("infinite", voxels(IMAGE, spoil(-np.inf), np.float32), IMAGE, "2 voxels", "replace")
listed("beyond_float32", voxels(IMAGE, spoil(1e300), np.float64), IMAGE, "infinite", "replace")
listed("constant_image", voxels(IMAGE, lambda a: a * 0 + 7), IMAGE, "value 7 everywhere", "remove")
listed("a_channel_lost", voxels(IMAGE, lambda a: a[..., 0]), IMAGE, "1 channels", "names 2")
listed("a_channel_more", voxels(IMAGE, lambda a: a[..., [0, 1, 1]]), IMAGE, "3 channels")
listed(
    "channels_first",
    voxels(IMAGE, lambda array: np.moveaxis(array, -1, 0)),
    IMAGE, "12 channels, but dataset.json names 2",
)  # fmt: skip
listed("one_slice", voxels(IMAGE, lambda a: a[:, :, 0, 0]), IMAGE, "2-D", "store 3-D")
listed("time_series", voxels(IMAGE, lambda a: a[..., None]), IMAGE, "5-D", "store 3-D")


def change_channel(change: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    def spoiled(array: np.ndarray) -> np.ndarray:
        change(array)
        return array

    return voxels(IMAGE, spoiled)


listed(
    "one_flat_channel",
    change_channel(lambda array: array[..., 1].fill(3)),
    "case_2", "without any contrast", "channel 1", warned=True,
)  # fmt: skip
listed(
    "one_channel_twice",
    change_channel(lambda array: array.__setitem__((..., 1), array[..., 0])),
    "case_2", "one channel twice", "channels 0 and 1", "check which", warned=True,
)  # fmt: skip
listed(
    "half_a_channel",
    change_channel(lambda array: array[:, :, 6:, 0].fill(0)),
    "case_2", "flat in slices", "of channel 0", "export them again", warned=True,
)  # fmt: skip


@fault(IMAGE, "a copy of its label", "put the image there")
def label_as_image(root: Path) -> None:
    voxels(LABEL, lambda array: array)(root)
    label = nibabel.load(root / LABEL)
    array = np.array(label.dataobj)
    store(root / IMAGE, np.stack([array, array], axis=-1), label.affine)


# --- the voxels of a label -------------------------------------------------------------------

listed("label_0.999", voxels(LABEL, spoil(0.999), np.float32), LABEL, "such as 0.999", "nearest")
listed("label_nan", voxels(LABEL, spoil(np.nan), np.float32), LABEL, "not integers", "nearest")
listed("label_inf", voxels(LABEL, spoil(np.inf), np.float32), LABEL, "not integers", "nearest")
listed("label_unknown", voxels(LABEL, spoil(7)), LABEL, "values 7 are not in", "declare or correct")
listed("label_negative", voxels(LABEL, spoil(-1), np.int16), LABEL, "values -1", "declare")
listed("label_huge", voxels(LABEL, spoil(2**40), np.int64), LABEL, "1.09951e+12", "dataset.json")
listed("label_4d", voxels(LABEL, lambda a: np.stack([a, a], -1)), LABEL, "4-D", "store one 3-D map")
listed("label_2d", voxels(LABEL, lambda array: array[..., 4]), LABEL, "2-D", "store one 3-D map")
listed("label_empty", voxels(LABEL, lambda a: a * 0), "case_2", "one value everywhere", "value 0",
       warned=True)  # fmt: skip
listed("label_full", voxels(LABEL, lambda a: a * 0 + 1), "case_2", "one value", "value 1",
       warned=True)  # fmt: skip
listed(
    "class_that_no_case_has",
    described(lambda declared: declared["labels"].update({"3": "cyst"})),
    JSON, "no label has a voxel of cyst", "are the values right?", warned=True,
)  # fmt: skip

# --- image and label, case and case ----------------------------------------------------------

listed("label_cropped", voxels(LABEL, lambda a: a[:, :-1]), LABEL, "(16, 13, 12)", "another case's")
listed("label_turned", voxels(LABEL, lambda a: a.transpose(1, 0, 2)), LABEL, "(14, 16, 12)")
listed(
    "affine_mirrored",
    affine(LABEL, change=lambda matrix: matrix @ np.diag([-1, 1, 1, 1])),
    LABEL, "affine differs from the image's by up to 4", "resample the label",
)  # fmt: skip


def exchange(first: str, second: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        os.rename(root / first, root / "other")
        os.rename(root / second, root / first)
        os.rename(root / "other", root / second)

    return make


def copied(part: str) -> Callable[[Path], None]:
    """The voxels of case 2 also in case 3."""

    def make(root: Path) -> None:
        source, target = (nibabel.load(root / f"{part}/case_{n}.nii.gz") for n in (2, 3))
        array, matrix = np.array(source.dataobj), target.affine
        store(root / f"{part}/case_3.nii.gz", array, matrix)

    return make


@fault("labelsTr/case_3.nii.gz", "affine differs", "by up to 10", "correct the header")
def affine_of_another_case(root: Path) -> None:
    other = nibabel.load(root / IMAGE).affine
    affine("labelsTr/case_3.nii.gz", change=lambda matrix: other)(root)


@fault("case_2", "that of case_3 explains", "are labels exchanged?", "Look at both", warned=True)
def labels_exchanged(root: Path) -> None:
    first, second = (nibabel.load(root / f"labelsTr/case_{n}.nii.gz") for n in (2, 3))
    ours, theirs = np.array(first.dataobj), np.array(second.dataobj)
    store(root / LABEL, theirs, first.affine)
    store(root / "labelsTr/case_3.nii.gz", ours, second.affine)


listed("mirrored_left_right", voxels(LABEL, lambda a: a[::-1]), "case_2", "mirrored left-right it",
       "is it flipped? Look at both", warned=True)  # fmt: skip
listed("conventions_of_itk_and_nifti", voxels(LABEL, lambda a: a[::-1, ::-1]), "case_2",
       "mirrored left-right and front-back", "is it flipped?", warned=True)  # fmt: skip
listed("mirrored_image", voxels(IMAGE, lambda a: a[:, :, ::-1]), "case_2", "mirrored up-down",
       warned=True)  # fmt: skip


@fault("imagesTr/case_3.nii.gz", "the same case as case_2.nii.gz", "remove one")
def same_case_twice(root: Path) -> None:
    copied("imagesTr")(root)
    copied("labelsTr")(root)


listed("same_patient_twice", copied("imagesTr"), "case_3", "the same image as case_2",
       "'case_3' and 'case_2' count as one and stay in one split", warned=True)  # fmt: skip
listed("same_label_twice", copied("labelsTr"), "case_3", "the same label as case_2",
       "one label is wrong", "stay in one split", warned=True)  # fmt: skip


@fault("case_3", "nearly the same image as case_2 (correlation 0.999", "in one split", warned=True)
def same_patient_converted_twice(root: Path) -> None:
    copied("imagesTr")(root)
    rescale = voxels("imagesTr/case_3.nii.gz", lambda array: np.rint(array / 4).astype(np.uint8))
    rescale(root)


# --- files -----------------------------------------------------------------------------------

listed("no_label", lambda root: (root / LABEL).unlink(), LABEL, "no such file", "has no label",
       "add the file or remove the case")  # fmt: skip
listed("no_image", lambda root: (root / IMAGE).unlink(), IMAGE, "no such file", "has no image",
       "add the file or remove the case")  # fmt: skip
for _part, _words in (("imagesTr", "image without label"), ("labelsTr", "label without image")):
    listed(
        f"stray_file_in_{_part}",
        lambda root, part=_part: shutil.copy(root / IMAGE, root / part / "stray.nii.gz"),
        f"{_part}/stray.nii.gz", _words, "list it or remove it",
    )  # fmt: skip
listed("loop_of_links", instead(IMAGE, lambda file: file.symlink_to(file.name)), IMAGE,
       "cannot be opened (Too many levels of symbolic links)", "add the file")  # fmt: skip
listed("broken_link", instead(IMAGE, lambda file: file.symlink_to("nowhere")), IMAGE,
       "a link that leads nowhere", "add the file")  # fmt: skip
listed("folder_for_a_file", instead(IMAGE, Path.mkdir), IMAGE, "a folder and no file", "add the")
listed(
    "named_pipe", instead(IMAGE, os.mkfifo), IMAGE, "a device or pipe and no file", "add the file"
)
listed("endless_device", instead(LABEL, lambda file: file.symlink_to("/dev/zero")), LABEL,
       "a device or pipe and no file", "add the file")  # fmt: skip
listed("no_permission", lambda root: (root / IMAGE).chmod(0), IMAGE, "may not read")
listed(
    "no_folder_of_images_but_a_file",
    lambda root: (shutil.rmtree(root / "imagesTr"), (root / "imagesTr").write_text("images")),
    "imagesTr", "a file and no folder", "expected the images",
)  # fmt: skip
listed("name_too_long", entry(image=f"imagesTr/{'x' * 300}.nii.gz"), "xxx.nii.gz", "too long")
listed("name_with_a_nul", entry(image="imagesTr/x\0.nii.gz"), "x\\x00.nii.gz", "null byte")
listed("image_above_the_folder", entry(image="../x.nii.gz"), JSON, "'../x.nii.gz' leaves the",
       "expected a path inside")  # fmt: skip
listed("label_beside_the_folder", entry(label="labelsTr/../../x.nii.gz"), JSON, "leaves the folder")
listed("absolute_path", entry(image="/etc/x.nii.gz"), JSON, "'/etc/x.nii.gz' leaves the folder")
listed("other_ending", entry(image=JSON), JSON, "expected a NIfTI file (.nii or .nii.gz)")
listed("newline_in_a_name", renamed("a\nb.nii.gz"), "'a\\nb'", "cannot be printed", "rename")
listed("escape_in_a_name", renamed("a\x1b[2Jb.nii.gz"), "'a\\x1b[2Jb'", "rename its files")
listed("name_that_is_no_text", renamed(os.fsdecode(b"\xff.nii.gz")), "'\\udcff'", "rename")
listed("name_in_braces", renamed("{case}.nii.gz"), "imagesTr/{case}.nii.gz", "what stands in",
       "rename it")  # fmt: skip
listed("choice_in_braces", renamed("a{seed,x}.nii.gz"), "a{seed,x}.nii.gz", "braces, rename it")
listed("name_of_240_bytes", renamed(f"{'é' * 120}.nii.gz"), "data: the case name 'éé",
       "longer than 200 bytes", "rename its files")  # fmt: skip
listed("blank_name", renamed(" .nii.gz"), "' '", "cannot be printed", "rename its files")

# --- dataset.json ----------------------------------------------------------------------------

listed("no_description", lambda root: (root / JSON).unlink(), JSON, "no such file", "expected")
listed(
    "description_cut", content(JSON, lambda d: d[:-40]), JSON, "cannot be read as JSON", "correct"
)
listed("description_empty", content(JSON, lambda data: b""), JSON, "cannot be read as JSON")
listed("description_utf16", content(JSON, lambda d: d.decode().encode("utf-16")), JSON, "utf-8")
listed("description_with_bom", content(JSON, lambda d: b"\xef\xbb\xbf" + d), JSON, "BOM")
listed("description_list", content(JSON, lambda d: b"[]"), JSON, "a JSON object, found list")
listed("description_bomb", content(JSON, lambda d: b"[" * 200_000), JSON, "nested too deeply")
listed("description_folder", instead(JSON, Path.mkdir), JSON, "a folder and no file")
listed("description_loop", instead(JSON, lambda file: file.symlink_to(JSON)), JSON, "Too many")
listed(
    "key_twice",
    content(JSON, lambda data: data.replace(b'"1": "rim"', b'"1": "rim", "1": "edge"')),
    JSON, "the key '1' stands twice", "keep one",
)  # fmt: skip
for _key in ("labels", "modality"):
    listed(f"no_{_key}", described(lambda declared, key=_key: declared.pop(key)), JSON,
           f"the key '{_key}' is missing, add it")  # fmt: skip
listed("no_list_of_cases", described(lambda d: d.pop("training")), JSON, "'training'", "add what")
for _name, _labels, *_words in (
    ("labels_listed", ["background"], "must be an object"),
    ("label_not_integer", {"0": "background", "one": "rim"}, "'one'", "an integer from 0"),
    ("label_fraction", {"background": 0, "rim": 1.5}, "'rim': 1.5", "an integer from 0"),
    ("label_true", {"background": 0, "rim": True}, "'rim': True", "an integer from 0"),
    ("label_below_0", {"background": 0, "rim": -1}, "'rim': -1", "an integer from 0"),
    ("label_of_terabytes", {"background": 0, "rim": 10**12}, "1000000000000", "to 65535"),
    ("no_background", {"1": "rim", "2": "core"}, "no value 0", "expected the background"),
    ("background_elsewhere", {"0": "rim", "1": "background", "2": "core"}, "value 1, expected 0"),
    ("label_name_twice", {"0": "background", "1": "rim", "2": "rim"}, "'rim'", "rename one"),
    ("label_value_twice", {"0": "background", "1": "rim", "01": "core"}, "twice, keep one"),
    ("label_region", {"background": 0, "rim": [1, 2]}, "region of several values", "merge"),
    ("label_ignored", {"background": 0, "rim": 1, "ignore": 2}, "not supported", "a class"),
    ("label_name_of_lines", {"0": "background", "1": "r\nim", "2": "core"}, "'r\\nim'", "change"),
    ("label_without_name", {"0": "background", "1": "", "2": "core"}, "''", "change it"),
    ("only_background", {"0": "background"}, "no foreground class"),
):
    _file = "labels" if _name == "only_background" else JSON
    listed(_name, labels(_labels), _file, *_words)
for _name, _channels, _words in (
    ("channels_listed", ["T1", "FLAIR"], "channels must be named '0', '1'"),
    ("channels_from_1", {"1": "T1", "2": "FLAIR"}, "channels must be named '0', '1'"),
    ("no_channel", {}, "no channel is named"),
    ("channel_number", {"0": "T1", "1": 2}, "channel 1 is named 2, expected a plain name"),
):
    listed(
        _name, described(lambda d, channels=_channels: d.update(modality=channels)), JSON, _words
    )
listed("cases_not_listed", described(lambda d: d.update(training={"a": 1})), JSON, "must be a list")
listed(
    "entry_of_text", described(lambda d: d["training"].__setitem__(1, "x")), JSON, "entry 1 needs"
)
listed("entry_without_label", described(lambda d: d["training"][1].pop("label")), JSON, "entry 1")
listed("entry_of_numbers", entry(image=5), JSON, "5 is not a file name", "expected a text")
listed("entry_of_modalities", entry(image=["a", "b"]), JSON, "is not a file name")
listed("entry_twice", described(lambda d: d["training"].append(d["training"][1])), JSON,
       "the case 'case_2' is listed twice", "remove or rename one")  # fmt: skip
listed("one_label_for_two", entry(label="labelsTr/case_1.nii.gz"), "case_1", "of two cases")
listed("image_as_label", entry(label=IMAGE), JSON, "as image and label", "name the label")
listed(
    "wrong_number", described(lambda d: d.update(numTraining=5)), JSON, "numTraining is 5, but 4"
)
listed("number_as_text", described(lambda d: d.update(numTraining="4")), JSON, "numTraining is '4'")
