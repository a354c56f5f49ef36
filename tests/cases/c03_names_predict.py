"""One folder of photographs whose names are awkward, one awkwardness each."""

from common import eye, out_folder, save

out = out_folder()
names = [
    "a.b.png",
    "a.png",
    "UPPER.PNG",
    "two words.png",
    "com,ma.png",
    "new\nline.png",
    "=cmd()|x.png",
    "+1.png",
    "@sum.png",
    "-dash.png",
    "007.png",
    "7.png",
    "1e5.png",
    "NA.png",
    "nan.png",
    'quote"d.png',
    "semi;colon.png",
    "eye :100: a.png",
    "od: left.png",
    "[red]x.png",
    "tab\tname.png",
    "esc\x1b[31mred.png",
    "e\u0301cole.png",
    "\u00e9toile.png",
    "眼.png",
    "trailing .png",
    "..x.png",
    ".hidden.png",
    "._a.png",
    "x.png.png",
    "x.jpg.png",
    "a" * 200 + ".png",
]
for number, name in enumerate(names):
    save(eye(number, 128)[0], out / name)
(out / "._a.png").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        " + b"\0" * 4000)  # what macOS leaves beside a.png
(out / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + b"\0" * 500)
(out / ".DS_Store").write_bytes(b"\0\0\0\1Bud1" + b"\0" * 500)
(out / "desktop.ini").write_text("[.ShellClassInfo]\r\n")
(out / "inner.png").mkdir()
