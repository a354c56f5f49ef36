"""Roots where some files end in .PNG: all of a domain, and one in three (image and mask alike)."""

from common import classic_root, out_folder

out = out_folder()
for kind, each in (("all", 1), ("some", 3)):
    classic_root(out / kind, train=6, test=6)
    for split in ("train", "test"):
        for folder in ("image", "mask"):
            for number, path in enumerate(sorted((out / kind / f"Domain1/{split}/ROIs/{folder}").iterdir())):
                if number % each == 0:
                    path.rename(path.with_suffix(".PNG"))
