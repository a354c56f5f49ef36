"""A root whose first domain mixes sizes: 20x20, 40x33, 1x1, 2124x2056 and a strip."""

from common import classic_root, dofe, eye, out_folder, save

out = out_folder()
classic_root(out)
sizes = {"train": [(20, 20), (40, 33), (2124, 2056)], "test": [(20, 20), (33, 40), (300, 31), (2124, 2056)]}
for split, shapes in sizes.items():
    for number, (width, height) in enumerate(shapes):
        photo, labels = eye(9000 + number + 10 * (split == "test"), width, height)
        stem = f"eye1{split}{number:02d}.png"
        save(photo, out / f"Domain1/{split}/ROIs/image/{stem}")
        save(dofe(labels), out / f"Domain1/{split}/ROIs/mask/{stem}")
