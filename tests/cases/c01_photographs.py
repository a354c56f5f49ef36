"""Photographs as cameras, phones and editors leave them, each with the same eye: one folder to predict."""

import struct
import zlib

from common import Image, eye, np, out_folder, save

out = out_folder()
photo, _ = eye(7, 320)
rgb = Image.fromarray(photo)
h, w = photo.shape[:2]
save(photo, out / "00plain.png")

alpha = np.where(np.hypot(*(np.mgrid[:h, :w] - h / 2)) < h / 2, 255, 0).astype(np.uint8)
save(np.dstack([photo, alpha]), out / "01alpha_circle.png")
save(np.dstack([np.where(alpha[..., None] > 0, photo, 255), alpha]), out / "02alpha_white_below.png")
grey = np.asarray(rgb.convert("L"))
save(np.dstack([grey, alpha]), out / "03grey_alpha.png")
rgb.convert("CMYK").save(out / "04cmyk.jpg", quality=95)
rgb.convert("CMYK").save(out / "05cmyk.tif")
rgb.convert("LAB").save(out / "06lab.tif")
rgb.convert("YCbCr").save(out / "07ycbcr.jpg", quality=95)
rgb.quantize(64).save(out / "08palette.png")
save(photo, out / "09dpi.png", dpi=(100000, 100000))
save(photo, out / "10dpi0.jpg", dpi=(0, 0), quality=95)
save(photo, out / "11progressive.jpg", progressive=True, quality=95)
exif = Image.Exif()
exif[0x0112] = 6
Image.fromarray(np.rot90(photo, 1)).save(out / "12exif6.jpg", exif=exif, quality=95)  # stored turned; 6 turns it back
exif[0x0112] = 9
save(photo, out / "13exif9.jpg", exif=exif, quality=95)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, *, bits=8, colour=2, rows=None, interlace=0, extra=b""):
    head = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, interlace)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


plain = b"".join(b"\0" + row.tobytes() for row in photo)
adam7 = b""
for y0, x0, dy, dx in (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
):
    adam7 += b"".join(b"\0" + row.tobytes() for row in photo[y0::dy, x0::dx])
png(out / "14interlaced.png", rows=adam7, interlace=1)
deep = (photo.astype(">u2") << 8).astype(">u2")
png(out / "15rgb16.png", bits=16, rows=b"".join(b"\0" + row.tobytes() for row in deep))
rgba16 = np.dstack([deep, np.full((h, w), 65535, ">u2")]).astype(">u2")
png(out / "16rgba16.png", bits=16, colour=6, rows=b"".join(b"\0" + row.tobytes() for row in rgba16))
png(
    out / "17text2mb.png",
    rows=plain,
    extra=chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b" " * 2_100_000)),
)
png(out / "18icc2mb.png", rows=plain, extra=chunk(b"iCCP", b"Scanner\0\0" + zlib.compress(b"\0" * 2_100_000)))
png(out / "19icc_junk.png", rows=plain, extra=chunk(b"iCCP", b"x\0\0" + b"not zlib"))
body = (out / "00plain.png").read_bytes()
(out / "20trailing.png").write_bytes(body + b"\0" * 300)
jpg = out / "21plain.jpg"
save(photo, jpg, quality=95)
data = jpg.read_bytes()


def with_app1(name: str, payload: bytes) -> None:
    (out / name).write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:])


tiff = exif.tobytes()[6:]
with_app1("22exif_blank.jpg", b"Exif\0\0")
with_app1("23exif_twice.jpg", b"Exif\0\0Exif\0\0" + tiff)
with_app1("24exif_junk.jpg", b"Exif\0\0" + bytes(range(40)))


def rational(orientation: int) -> bytes:
    """EXIF with an orientation, and a resolution of 0/0."""
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", 2)
        + struct.pack("<HHII", 0x0112, 3, 1, orientation)
        + struct.pack("<HHII", 0x011A, 5, 1, 38)
        + b"\0\0\0\0"
        + struct.pack("<II", 0, 0)
    )


with_app1("25exif_zero_rational.jpg", b"Exif\0\0" + rational(1))
with_app1("26exif6_zero_rational.jpg", b"Exif\0\0" + rational(6))
two = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHIHH", 0x0112, 3, 2, 6, 6) + b"\0\0\0\0"
with_app1("27exif_orientation_twice.jpg", b"Exif\0\0" + two)
ascii_ = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHI4s", 0x0112, 2, 2, b"6\0\0\0") + b"\0\0\0\0"
with_app1("28exif_orientation_text.jpg", b"Exif\0\0" + ascii_)
cut = b"II*\0\x08\0\0\0" + struct.pack("<H", 40) + struct.pack("<HHII", 0x0112, 3, 1, 6)
with_app1("29exif_cut.jpg", b"Exif\0\0" + cut)
(out / "30no_eoi.jpg").write_bytes(data[:-2])
(out / "31junk_before_eoi.jpg").write_bytes(data[:-2] + b"\0\0\0\0" + data[-2:])
(out / "32trailing.jpg").write_bytes(data + b"camera maker's trailer" * 50)
save(photo, out / "33jpeg_in_tiff.tif", compression="jpeg")
save(photo, out / "34lzw.TIFF", compression="tiff_lzw")
thumb = rgb.resize((64, 64))
rgb.save(out / "35thumbnail_page.tif", save_all=True, append_images=[thumb])
rgb.save(out / "36mpo.jpg", format="MPO", save_all=True, append_images=[rgb.transpose(0)])
rgb.convert("1").save(out / "37onebit.png")
rgb.save(out / "38.bmp")
rgb.save(out / "39frames.png", save_all=True, append_images=[rgb.transpose(0)])
save(photo[:20, :20], out / "40tiny20.png")
save(photo[:1, :1], out / "41one_pixel.png")
save(photo[:2, :300], out / "42strip.png")
save(eye(3, 2124, 2056)[0], out / "43big2124x2056.png")
save(np.zeros((300, 300, 3), np.uint8), out / "44black.png")
