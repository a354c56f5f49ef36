"""Draw optic disc and cup in crops around the disc: `python predict.py CROP... --out DIR`. Not a medical device.
It needs numpy, pillow, opencv-python-headless and onnxruntime. It finds no disc in whole photographs, warns of nothing
and reads no DICOM: `fundus-seg predict` does. Masks have the greys 0 cup, 128 rim, 255 background.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def _read(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
        pages = getattr(image, "n_frames", 1) if image.format in ("TIFF", "PNG") else 1
        if image.mode[0] in "IF" or ";16" in str(image.tile) or pages > 1:
            raise ValueError("more than 8 bits a channel, or several pages; export it as a PNG with 8 bits")
        return ImageOps.exif_transpose(image).convert("RGB")


def _clean(mask: Any, largest: bool, fill: bool) -> Any:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if largest and len(stats) > 2:  # of equal components the first, row by row
        mask = labels == labels.flat[np.isin(labels, 1 + np.flatnonzero(stats[1:, 4] == stats[1:, 4].max())).argmax()]
    flooded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(flooded, None, (0, 0), 2, flags=4)
    return flooded[1:-1, 1:-1] != 2 if fill else mask


def predict(session: Any, about: dict[str, Any], photograph: Image.Image) -> Any:
    """The mask (H, W) uint8 of a photograph, by a session of onnxruntime and the content of model.json."""
    size, scoring = (about["model_spec"]["image_size"],) * 2, about["usage"]["scoring"]
    seen = photograph.resize(size, Image.Resampling[about["usage"]["image_interpolation"].upper()])
    images = np.ascontiguousarray((np.asarray(seen, np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
    maps = [cv2.resize(each, photograph.size) for each in session.run(None, {"photographs": images})[0][0]]  # bilinear
    line = np.log(scoring["threshold"] / (1 - scoring["threshold"]))
    disc, cup = (_clean(each > line, scoring["largest_component"], scoring["fill_holes"]) for each in maps)
    return np.where(disc, np.where(cup, 0, 128), 255).astype(np.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crops", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    if len({path.stem for path in given.crops}) < len(given.crops):
        sys.exit("error: crops share a name, and would share a mask; rename one")
    model, text = (Path(__file__).with_name(name).read_bytes() for name in ("model.onnx", "model.json"))
    session, about = onnxruntime.InferenceSession(model), json.loads(text)
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        for path in given.crops:
            Image.fromarray(predict(session, about, _read(path))).save(given.out / f"{path.stem}.png")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {path}: {error}")
