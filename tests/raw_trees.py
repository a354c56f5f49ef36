"""Trees as the published downloads lay them out: real names and numbers, tiny pictures."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fundus_seg.datasets.dofe_split import members

WIDTH, HEIGHT = 48, 40
"""Size of the photographs."""


def drawn(width: int = WIDTH, height: int = HEIGHT, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Disc and cup (H, W): 16 and 8 pixels wide, on the centre, moved to the right by `shift`."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.maximum(abs(rows - height // 2 + 0.5), abs(columns - width // 2 - shift + 0.5))
    return distance < 8, distance < 4


def pixels_of(width: int = WIDTH, height: int = HEIGHT, shift: int = 0) -> np.ndarray:
    disc, cup = drawn(width, height, shift)
    grey = 60 + 80 * disc + 60 * cup + np.arange(width) % 7
    return np.stack([grey, grey // 2, grey // 3], axis=-1).astype(np.uint8)


def greys(background: int, rim: int, cup: int, **where: int) -> np.ndarray:
    disc, inner = drawn(**where)
    return np.select([inner, disc], [cup, rim], background).astype(np.uint8)


def encoded(pixels: np.ndarray, form: str) -> bytes:
    content = BytesIO()
    Image.fromarray(pixels).save(content, form, **({"quality": 95} if form == "JPEG" else {}))
    return content.getvalue()


@cache
def photograph(form: str = "PNG", width: int = WIDTH, height: int = HEIGHT, shift: int = 0) -> bytes:
    return encoded(pixels_of(width, height, shift), form)


Tree = dict[str, bytes]
"""The content of each file, by its path."""


def drishti() -> Tree:
    """Drishti-GS1_files: 101 photographs, of which the disc is drawn by all four experts, and its border by three."""
    soft = {"ODsegSoftmap": encoded(greys(0, 255, 255), "PNG"), "cupsegSoftmap": encoded(greys(0, 0, 255), "PNG")}
    tree = {"Drishti-GS1_files/Training/GT/Notching___Image__level_decisions.xlsx": b"not read"}
    for name, split in members("A").items():
        name = name[1:]
        folder, truth = ("Training", "GT") if split == "train" else ("Test", "Test_GT")
        tree[f"Drishti-GS1_files/{folder}/Images/{name}.png"] = photograph()
        below = f"Drishti-GS1_files/{folder}/{truth}/{name}"
        tree[f"{below}/{name}_cdrValues.txt"] = b"0.5 0.5 0.5 0.5"
        tree[f"{below}/AvgBoundary/{name}_ODAvgBoundary.txt"] = b"1 1\n"
        for kind, content in soft.items():
            tree[f"{below}/SoftMap/{name}_{kind}.png"] = content
    return tree


def refuge_train() -> Tree:
    """The two unpacked zips of REFUGE's training set."""
    mask = encoded(greys(255, 128, 0), "BMP")
    tree = {}
    for name in members("C"):
        folder = "Glaucoma" if name.startswith("g") else "Non-Glaucoma"
        tree[f"Training400/{folder}/{name}.jpg"] = photograph("JPEG")
        tree[f"Annotation-Training400/Disc_Cup_Masks/{folder}/{name}.bmp"] = mask
    return tree | {"Annotation-Training400/Fovea_location.xlsx": b"not read"}


def refuge_val() -> Tree:
    mask = encoded(greys(255, 128, 0), "BMP")
    tree = {}
    for name in members("D"):
        tree[f"REFUGE-Validation400/{name}.jpg"] = photograph("JPEG")
        tree[f"REFUGE-Validation400-GT/Disc_Cup_Masks/{name}.bmp"] = mask
    return tree


def refuge_test() -> Tree:
    mask = encoded(greys(255, 128, 0), "BMP")
    tree = {}
    for number in range(1, 401):
        tree[f"Test400/T{number:04d}.jpg"] = photograph("JPEG")
        folder = "G" if number <= 40 else "N"
        tree[f"REFUGE-Test-GT/Disc_Cup_Masks/{folder}/T{number:04d}.bmp"] = mask
    return tree


def rim_one_r3() -> Tree:
    """Two views of 1072 columns each: of 24 rows, to be small. The mask lies on the left view."""
    where = {"width": 2144, "height": 24, "shift": -572}
    files = {
        "Disc": encoded(drawn(**where)[0].astype(np.uint8) * 255, "PNG"),
        "Cup": encoded(drawn(**where)[1].astype(np.uint8) * 255, "PNG"),
    }
    tree = {}
    for name in members("B"):
        folder = "RIM-ONE r3/" + ("Healthy" if name.startswith("N") else "Glaucoma and suspects")
        tree[f"{folder}/Stereo Images/{name}.jpg"] = photograph("JPEG", **where)
        for structure, content in files.items():
            tree[f"{folder}/Average_masks/{name}-{structure}-Avg.png"] = content
            for expert in "12":
                tree[f"{folder}/Expert{expert}_masks/{name}-1-{structure}-exp{expert}.png"] = content
                tree[f"{folder}/Expert{expert}_masks/{name}-1-{structure}-exp{expert}.txt"] = b"x"
    return tree


def dofe() -> Tree:
    tree = {}
    mask = encoded(greys(255, 128, 0), "PNG")
    for number, domain in enumerate("ABCD", start=1):
        for name, split in members(domain).items():
            below = f"Fundus/Domain{number}/{split}"
            tree[f"{below}/ROIs/image/{name}.png"] = photograph()
            tree[f"{below}/ROIs/mask/{name}.png"] = mask
    return tree


def laid(tree: Mapping[str, bytes], folder: Path, rename: Callable[[str], str] = lambda path: path) -> Path:
    """Write a tree into a folder."""
    for path, content in tree.items():
        target = folder / rename(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def zipped(tree: Mapping[str, bytes], path: Path) -> Path:
    """Write a tree as a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path
