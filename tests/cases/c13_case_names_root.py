"""A root whose unseen test split has names that spreadsheets and readers of CSV mistake for something else."""

from common import classic_root, out_folder

out = out_folder()
names = [
    "NA",
    "nan",
    "None",
    "007",
    "7",
    "1e5",
    "com,ma",
    "new\nline",
    'quo"te',
    "=1+1",
    "TRUE",
    "2020-01-02",
    " lead",
    "a.b",
    "#hash",
    "x" * 200,
]
classic_root(out, test=len(names))
for kind in ("image", "mask"):
    for path, name in zip(sorted((out / f"Domain1/test/ROIs/{kind}").iterdir()), names, strict=True):
        path.rename(path.with_name(f"{name}.png"))
