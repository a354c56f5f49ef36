"""Settings and domain files as Windows editors, spreadsheets and habits leave them."""

from common import classic_root, out_folder

out = out_folder()
classic_root(out / "root")
plain = "train:\n  epochs: 1\noptim:\n  lr: 1e-3\n"
patterns = 'images: "root/Domain{}/{}/ROIs/image/*.png", masks: "root/Domain{}/{}/ROIs/mask/{{name}}.png"'
domains = "domains:\n" + "".join(
    f"  {key}:\n" + "".join(f"    {split}: {{{patterns.format(n, split, n, split)}}}\n" for split in ("train", "test"))
    for n, key in ((1, "no"), (2, "yes"), (3, "on"))
)
files = {
    "plain": plain.encode(),
    "bom": b"\xef\xbb\xbf" + plain.encode(),
    "crlf": plain.replace("\n", "\r\n").encode(),
    "utf16": plain.encode("utf-16"),
    "tabs": plain.replace("  ", "\t").encode(),
    "latin1": ("# Müller\n" + plain).encode("latin-1"),
    "octal": b"train: {epochs: 010}\nseed: 007\n",
    "sexagesimal": b"train: {epochs: 1:00}\n",
    "decimal_comma": b"optim: {lr: 0,001}\n",
    "twice": plain.encode() + b"train:\n  epochs: 3\n",
    "twice_inside": b"train:\n  epochs: 1\n  epochs: 2\n",
    "nbsp": "train:\n\u00a0\u00a0epochs: 1\n".encode(),
    "smart_quotes": "model:\n  op: \u201cconv\u201d\n".encode(),
    "empty": b"",
    "comment_only": b"# nothing\n",
    "two_documents": plain.encode() + b"---\n" + plain.encode(),
    "null_section": b"train:\noptim:\n",
    "bool_threads": b"train: {threads: yes}\n",
    "float_epochs": b"train: {epochs: 2.0}\n",
    "string_epochs": b"train: {epochs: '2'}\n",
    "underscore": b"train: {epochs: 1_0}\n",
    "merge": b"a: &a {epochs: 1}\ntrain:\n  <<: *a\n",
    "tag": b"train: !!python/object/apply:os.system ['true']\n",
    "betas_text": b"optim: {betas: 0.9, 0.99}\n",
    "holdout_no": b"holdout: no\n",
    "null_byte": b"train: {epochs: 1}\0\n",
    "preset_number": b"preset: 1\n",
}
for name, content in files.items():
    (out / f"{name}.yaml").write_bytes(content)
for name, content in (
    ("domains", domains.encode()),
    ("domains_bom_crlf", b"\xef\xbb\xbf" + domains.replace("\n", "\r\n").encode()),
    ("domains_utf16", domains.encode("utf-16")),
    ("domains_tabs", domains.replace("  ", "\t").encode()),
):
    (out / f"{name}.yml").write_bytes(content)
