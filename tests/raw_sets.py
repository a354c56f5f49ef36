"""Trees of the sets beside the benchmark's four, as published: real names and numbers, tiny pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from io import BytesIO

import numpy as np
import scipy.io
from PIL import Image
from raw_trees import HEIGHT, WIDTH, Tree, drawn, encoded, greys, photograph

COUNTS = {"r1": (81, 17), "r2": (166, 84), "r3": (92, 45)}
"""Photographs of each release in RIM-ONE DL: of the random partition, for training and for testing."""
LEAKING = ("r2_Im319", "r2_Im347", "r2_Im357", "r2_Im422", "r2_Im427")
"""Cases of RIM-ONE DL whose cup leaves the disc."""
CAMERAS = {"Bosch": (104, 41, "Image{}.jpg"), "Forus": (95, 31, "{}.png"), "Remidio": (810, 264, "IMG_{}.JPG")}
"""Photographs of each camera of Chaksu, for training and for testing, and how they are called."""


def binary(structure: str) -> np.ndarray:
    """A mask (H, W) of 0 and 255: `Disc` or `Cup`."""
    return drawn()[structure == "Cup"].astype(np.uint8) * 255


@cache
def binary_png(structure: str) -> bytes:
    return encoded(binary(structure), "PNG")


def rim_one_dl_stems() -> Iterator[tuple[str, str]]:
    """The name and the part of each of the 485 photographs."""
    odd = iter(LEAKING)
    for release, numbers in COUNTS.items():
        for part, number in zip(("training_set", "test_set"), numbers, strict=True):
            for place in range(number):
                if release == "r3":
                    yield (
                        f"r3_{'NGS'[place % 3]}-{place + 1 + 100 * (part == 'test_set')}-{'LR'[place % 2]}_left_half",
                        part,
                    )
                else:
                    named = release == "r2" and part == "test_set" and next(odd, "")
                    yield named or f"{release}_Im{place + 1 + 500 * (part == 'test_set'):03d}", part


def rim_one_dl() -> Tree:
    tree = {"RIM-ONE_DL_images/LICENSE.txt": b"..."}
    for place, (stem, part) in enumerate(rim_one_dl_stems()):
        kind = "glaucoma" if place % 3 == 0 else "normal"
        tree[f"RIM-ONE_DL_images/partitioned_randomly/{part}/{kind}/{stem}.png"] = photograph()
        other = ("training_set", "test_set")[place % 2]
        tree[f"RIM-ONE_DL_images/partitioned_by_hospital/{other}/{kind}/{stem}.png"] = photograph()
        for structure in ("Disc", "Cup"):
            below = f"RIM-ONE_DL_reference_segmentations/{kind}/{stem}-1-{structure}-T"
            tree[f"{below}.png"], tree[f"{below}.txt"] = binary_png(structure), b"1 1\n"
    return tree


def origa() -> Tree:
    """The pack of Kaggle: masks of 0, 1 and 2, files .mat beside them, and smaller copies."""
    mask = encoded(greys(0, 1, 2), "PNG")
    rows = ["Eye,Filename,ExpCDR,Set,Glaucoma"]
    tree = {"ORIGA/Semi-automatic-annotations/013.tif": b"stray", "ORIGA/Semi-automatic-annotations/110.tif": b"stray"}
    for number in range(1, 651):
        for kind in ("Images", "Images_Cropped", "Images_Square"):
            tree[f"ORIGA/{kind}/{number:03d}.jpg"] = photograph("JPEG") if kind == "Images" else b"smaller"
        for kind in ("Masks", "Masks_Cropped", "Masks_Square"):
            tree[f"ORIGA/{kind}/{number:03d}.png"] = mask if kind == "Masks" else b"smaller"
        tree[f"ORIGA/Semi-automatic-annotations/{number:03d}.mat"] = b"not read"
        rows.append(f"{'OD' if number % 2 else 'OS'},{number:03d}.jpg,0.5,{'AB'[number % 2]},{int(number <= 168)}")
    return tree | {"ORIGA/OrigaList.csv": "\n".join(rows).encode(), "ORIGA/origa_info.csv": b"Image,Label\n"}


def mat(**variables: object) -> bytes:
    content = BytesIO()
    scipy.io.savemat(content, variables or {"mask": greys(0, 1, 2)}, do_compression=True)
    return content.getvalue()


def square(low: int, high: int, middle: tuple[int, int]) -> list[list[float]]:
    """The corners of a square about a point: x, y."""
    x, y = middle
    return [[x + low, y + low], [x + high, y + low], [x + high, y + high], [x + low, y + high]]


MIDDLE = WIDTH // 2, HEIGHT // 2
DISC, CUP = square(-8, 7, MIDDLE), square(-4, 3, MIDDLE)
"""Contours of the areas that `drawn` gives."""


def polygons(**shapes: Iterable[Iterable[float]]) -> bytes:
    """A file of labelme."""
    drawings = [{"label": label, "points": points, "shape_type": "polygon"} for label, points in shapes.items()]
    return json.dumps({"shapes": drawings, "imageHeight": HEIGHT, "imageWidth": WIDTH, "imageData": None}).encode()


def g1020(without_cup: int = 230) -> Tree:
    """Numbers have gaps and no zeros before them; of the first cases, nobody annotated the cup."""
    both, alone = polygons(disc=DISC, cup=CUP, bv=[[0, 0]]), polygons(disc=DISC)
    rows, tree = ["imageID,binaryLabels"], {}
    for place in range(1020):
        name = f"image_{place * 3}"
        tree[f"G1020/Images/{name}.jpg"] = photograph("JPEG")
        tree[f"G1020/Images/{name}.json"] = alone if place < without_cup else both
        tree[f"G1020/Masks/{name}.png"] = encoded(greys(0, 1, 1 if place < without_cup else 2), "PNG")
        tree[f"G1020/Images_Square/{name}.jpg"] = tree[f"G1020/Masks_Square/{name}.png"] = b"smaller"
        tree[f"G1020/Images_Cropped/img/{name}.jpg"] = tree[f"G1020/NerveRemoved_Images/{name}.jpg"] = b"cropped"
        rows.append(f"{name}.jpg,{int(place < 296)}")
    rows[1 + 249] = "image_747.jpg,0[imageindex]"
    return tree | {"G1020/G1020.csv": "\n".join(rows).encode()}


def contour(points: Iterable[Iterable[float]]) -> bytes:
    """Points as x and y, in scientific notation."""
    return "".join("{:.7e} {:.7e}\n".format(*point) for point in points).encode()


def papila() -> Tree:
    """Both eyes of 244 patients, whose numbers have gaps. The second expert draws a smaller disc."""
    root = "PapilaDB-PAPILA-17f8fa7746adb20275b5b6a0d99dc9dfe3007e9f"
    drawings = {
        ("disc", 1): contour(DISC),
        ("cup", 1): contour(CUP),
        ("disc", 2): contour(square(-6, 5, MIDDLE)),
        ("cup", 2): contour(CUP),
    }
    tree = {f"{root}/HelpCode/read.py": b"..."}
    for place in range(244):
        for eye in ("OD", "OS"):
            name = f"RET{2 + place + place // 20:03d}{eye}"
            tree[f"{root}/FundusImages/{name}.jpg"] = photograph("JPEG")
            tree[f"{root}/ExpertsSegmentations/ImagesWithContours/Opht_cont_{name}.jpg"] = b"contours burnt in"
            for (structure, expert), content in drawings.items():
                tree[f"{root}/ExpertsSegmentations/Contours/{name}_{structure}_exp{expert}.txt"] = content
    return tree


@cache
def transparent(structure: str, grey: int = 255) -> bytes:
    """A mask with four channels, nearly binary, of which parts are transparent."""
    mask = np.where(binary(structure) > 0, grey, 3).astype(np.uint8)
    return encoded(np.stack([mask, mask, mask, binary("Disc") | 1], axis=-1), "PNG")


def chaksu(
    fused: Iterable[str] = ("Majority",), experts: Iterable[int] = (), cameras: Iterable[str] = tuple(CAMERAS)
) -> Tree:
    """Train and Test; in Test, a folder is called `Remedio`. Names of masks differ in ending and case.

    Two of the tables are there: one names photographs as `file.jpg-file-1.jpg`, one misspells a diagnosis, and they
    name the majority's column otherwise.
    """
    tree = {
        "Train/6.0_Glaucoma_Decision/Glaucoma_Decision_Comparison_Bosch_majority.csv": b"Images,Expert.1,Majority "
        b"Decision\nImage101.jpg-Image101-1.jpg,NORMAL,NORMAL\n",
        "Test/6.0_Glaucoma_Decision/Glaucoma_Decision_Comparison_Remidio_majority.csv": b"Images,Glaucoma Decision\n"
        b"IMG_911.tif-IMG_911-1.tif,GLAUCOMA  SUSUPECT\n",
    }
    for camera, (train, test, form) in ((each, CAMERAS[each]) for each in cameras):
        for place in range(train + test):
            split = "Train" if place < train else "Test"
            file = form.format(place + 101)
            tree[f"{split}/1.0_Original_Fundus_Images/{camera}/{file}"] = photograph("JPEG")
            folder = "Remedio" if (camera, split) == ("Remidio", "Test") else camera
            stem = file.partition(".")[0].lower()
            for structure in ("Disc", "Cup"):
                below = f"{split}/5.0_OD_OC_Mean_Median_Majority_STAPLE/{folder}/{structure}"
                tree |= {f"{below}/{kind}/{stem}.png": transparent(structure) for kind in fused}
                tree[f"{below}/Overlay/{stem}.png"] = b"not read"
                below = f"{split}/3.0_Doctors_Annotations_Binary_OD_OC/Expert "
                tree |= {f"{below}{number}/{folder}/{structure}/{stem}.tif": tiff(structure) for number in experts}
    return tree


@cache
def tiff(structure: str) -> bytes:
    content = BytesIO()
    Image.fromarray(binary(structure)).save(content, "TIFF")
    return content.getvalue()


def gamma() -> Tree:
    """The first and the third task: the same photographs twice, and test photographs without masks."""
    mask = encoded(greys(255, 128, 0), "PNG")
    tree = {}
    for number in range(1, 201):
        part = "training" if number <= 100 else "testing"
        name = f"{number:04d}"
        tree[f"Glaucoma_grading/{part}/multi-modality_images/{name}/{name}.jpg"] = photograph("JPEG")
        tree[f"Glaucoma_grading/{part}/multi-modality_images/{name}/{name}/0_image.jpg"] = b"OCT"
        tree[f"task3_disc_cup_segmentation/{part}/fundus color images/{name}.jpg"] = photograph("JPEG")
        if number <= 100:
            tree[f"task3_disc_cup_segmentation/training/Disc_Cup_Mask/{name}.png"] = mask
    return tree


def drions() -> Tree:
    """Contours of the disc alone, as `x , y`."""
    lines = "".join(f"{x:.2f} , {y:.2f}\r\n" for x, y in DISC).encode()
    tree = {"DRIONS-DB/experts_anotation/_Leeme.txt": b"..."}
    for number in range(1, 111):
        tree[f"DRIONS-DB/images/image_{number:03d}.jpg"] = photograph("JPEG")
        for expert in "12":
            tree[f"DRIONS-DB/experts_anotation/anotExpert{expert}_{number:03d}.txt"] = lines
    return tree
