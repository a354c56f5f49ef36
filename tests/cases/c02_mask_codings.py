"""One root a way of coding masks; in each the first domain's masks are saved that way, in both splits."""

import io

from common import Image, classic_root, dofe, eye, np, out_folder, save

out = out_folder()


def inverted(labels):  # 0 background, 128 rim, 255 cup
    return np.array([0, 128, 255], np.uint8)[labels]


def labels012(labels):
    return labels


def labels021(labels):  # 0 background, 1 cup, 2 rim
    return np.array([0, 2, 1], np.uint8)[labels]


def labels0255_disc(labels):  # a disc alone, white on black
    return np.array([0, 255, 255], np.uint8)[labels]


def black_disc(labels):  # a disc alone, black on white
    return np.array([255, 0, 0], np.uint8)[labels]


def black_disc_smoothed(labels):  # the same, drawn at four times the size and reduced with smoothing
    big = Image.fromarray(black_disc(np.kron(labels, np.ones((4, 4), np.uint8))))
    return np.asarray(big.resize((labels.shape[1], labels.shape[0]), Image.Resampling.LANCZOS))


def white_disc_smoothed(labels):
    return 255 - black_disc_smoothed(labels)


def dofe_smoothed(labels):
    big = Image.fromarray(dofe(np.kron(labels, np.ones((4, 4), np.uint8))))
    return np.asarray(big.resize((labels.shape[1], labels.shape[0]), Image.Resampling.LANCZOS))


def dofe_jpeg(labels):
    buffer = io.BytesIO()
    Image.fromarray(dofe(labels)).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))  # the JPEG's noise, saved again as PNG


def rim_and_cup_swapped(labels):  # 0 rim, 128 cup
    return np.array([255, 0, 128], np.uint8)[labels]


def two_thirds(labels):  # 0, 85, 170: labels stretched to a visible range
    return np.array([0, 85, 170], np.uint8)[labels]


def colour_map(labels):  # as a plotting tool saves a matrix
    return np.array([[68, 1, 84, 255], [33, 145, 140, 255], [253, 231, 37, 255]], np.uint8)[labels]


def one_stray(labels):  # sound, but for a few cup-coloured pixels in a corner
    grey = dofe(labels).copy()
    grey[2:5, 2:5] = 0
    return grey


def two_discs(labels):
    grey = dofe(labels).copy()
    grey[-60:-20, -60:-20] = 128
    return grey


def one_pixel_disc(labels):
    grey = np.full_like(dofe(labels), 255)
    grey[100, 100], grey[100, 101] = 0, 128
    return grey


def cup_at_edge(labels):  # the cup leaves the disc on one side
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    ys, xs = np.nonzero(labels)
    cup = np.hypot(rows - ys.mean(), columns - xs.min() - 20) < 40
    return np.where(cup, 0, np.where(labels > 0, 128, 255)).astype(np.uint8)


WAYS = (
    inverted,
    labels012,
    labels021,
    labels0255_disc,
    black_disc,
    black_disc_smoothed,
    white_disc_smoothed,
    dofe_smoothed,
    dofe_jpeg,
    rim_and_cup_swapped,
    two_thirds,
    colour_map,
    one_stray,
    two_discs,
    one_pixel_disc,
    cup_at_edge,
)
for way in WAYS:
    root = out / way.__name__
    classic_root(root, domains=2)
    for split, count in (("train", 3), ("test", 4)):
        for number in range(count):
            _, labels = eye(1000 + 100 * (split == "test") + number)
            save(way(labels), root / f"Domain1/{split}/ROIs/mask/eye1{split}{number:02d}.png")
root = out / "labels012_test_only"
classic_root(root, domains=2)
for path in sorted((out / "labels012/Domain1/test/ROIs/mask").iterdir()):
    (root / "Domain1/test/ROIs/mask" / path.name).write_bytes(path.read_bytes())
root = out / "palette"
classic_root(root, domains=2)
for path in sorted(root.glob("Domain1/*/ROIs/mask/*.png")):
    grey = np.asarray(Image.open(path))
    indexed = Image.fromarray(np.select([grey == 0, grey == 128], [2, 1], 0).astype(np.uint8), "P")
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
    indexed.save(path)
