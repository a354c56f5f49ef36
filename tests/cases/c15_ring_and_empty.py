"""True labels; predictions as two binary files, the disc a ring without the cup; one missed; one of another size."""

from common import eye, np, out_folder, save

out = out_folder()
for number in range(6):
    _, labels = eye(number)
    name = f"case_{number}.png"
    save(labels, out / "truth" / name)
    save(np.where(labels == 1, 255, 0).astype(np.uint8), out / "ring" / name)
    save(np.where(labels == 2, 255, 0).astype(np.uint8), out / "cup" / name)
    save(labels if number else np.zeros_like(labels), out / "missed" / name)
    save(labels if number else labels[:200], out / "othersize" / name)
    save(np.zeros_like(labels), out / "all_empty" / name)
    save(np.zeros_like(labels) if number == 1 else labels, out / "truth_empty" / name)
