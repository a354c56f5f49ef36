"""Downloads as folders and archives, and archives that mean harm."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from raw_trees import laid, zipped

from fundus_seg.datasets import archives
from fundus_seg.datasets import raw as raw_module
from fundus_seg.datasets.raw import Raw
from fundus_seg.errors import DataError, Problems

TREE = {"set/a/1.png": b"one", "set/b/2.PNG": b"two"}


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def read(raw):
    """The content of each file, by its name; None for one that cannot be unpacked."""
    problems = Problems()
    raw.fetch(raw.files, problems)
    paths = {file.name: raw.path(file) for file in raw.files}
    return {name: path and path.read_bytes() for name, path in paths.items()}, list(map(str, problems.found))


def tarred(tree, path, mode="w:gz", members=()):
    with tarfile.open(path, mode) as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in members:
            archive.addfile(info)
    return path


class TestListed:
    @pytest.mark.parametrize("form", ["folder", "zip", "tar", "tar.gz", "tar.xz"])
    def test_the_same_files_whatever_holds_them(self, form, tmp_path, scratch):
        path = tmp_path / f"raw.{form}"
        if form == "folder":
            laid(TREE, path)
        elif form == "zip":
            zipped(TREE, path)
        else:
            tarred(TREE, path, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[form])
        assert read(Raw([path], scratch)) == ({f"raw.{form}/{name}": content for name, content in TREE.items()}, [])

    def test_archives_in_archives_and_in_folders(self, tmp_path, scratch):
        inner = zipped(TREE, tmp_path / "inner.zip").read_bytes()
        (tmp_path / "raw").mkdir()
        zipped({"REFUGE2/inner.zip": inner}, tmp_path / "raw" / "outer.zip")
        contents, _ = read(Raw([tmp_path / "raw"], scratch))
        assert contents["raw/outer.zip/REFUGE2/inner.zip/set/a/1.png"] == b"one"

    def test_several_paths_and_a_single_file(self, tmp_path, scratch):
        laid({"1.png": b"one"}, tmp_path / "x")
        (tmp_path / "table.xlsx").write_bytes(b"PK")
        raw = Raw([tmp_path / "x", tmp_path / "table.xlsx"], scratch)
        assert [file.name for file in raw.files] == ["x/1.png", "table.xlsx"]

    def test_what_systems_leave_behind_is_passed_over(self, tmp_path, scratch):
        noise = ("__MACOSX/set/._1.png", "set/.DS_Store", "set/Thumbs.db", "set/._1.png", "set/1.png:Zone.Identifier")
        path = zipped({**TREE, **dict.fromkeys(noise, b"x")}, tmp_path / "raw.zip")
        assert set(read(Raw([path], scratch))[0]) == {f"raw.zip/{name}" for name in TREE}

    @pytest.mark.parametrize("pack", [zipped, tarred])
    @pytest.mark.parametrize("name", ["set\\a\\1.png", "././set//a/1.png", "set/./a/1.png"])
    def test_names_of_other_archivers(self, name, pack, tmp_path, scratch):
        path = pack({name: b"one"}, tmp_path / "raw.archive")
        assert read(Raw([path], scratch))[0] == {"raw.archive/set/a/1.png": b"one"}

    def test_bytes_of_names_that_are_not_utf_8(self, tmp_path, scratch):
        folder = laid({"1.png": b"one"}, tmp_path / os.fsdecode(b"Gr\xf6n"))
        archive = tmp_path / "raw.tar"
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as packed:
            packed.add(folder / "1.png", "Gr\xf6n/1.png")
        contents, _ = read(Raw([folder, archive], scratch))
        assert contents == {"Gr\\xf6n/1.png": b"one", "raw.tar/Gr\\xf6n/1.png": b"one"}

    def test_an_archive_is_a_folder_of_its_name(self, tmp_path, scratch):
        """Some zips of `Train` hold its files alone, others hold them in a folder `Train`."""
        inner = zipped({"a/1.png": b"one"}, tmp_path / "x.zip").read_bytes()
        path = zipped({"GT.TAR.GZ/2.png": b"two", "GT.ZIP": inner}, tmp_path / "Train.zip")
        assert [file.path for file in Raw([path], scratch).files] == ["Train/GT/2.png", "Train/GT/a/1.png"]

    def test_a_link_keeps_its_name_and_the_same_folder_counts_once(self, tmp_path, scratch, monkeypatch):
        laid({"1.png": b"one"}, tmp_path / "store")
        (tmp_path / "Train").symlink_to(tmp_path / "store")
        monkeypatch.chdir(tmp_path / "store")
        raw = Raw([tmp_path / "store", Path("../store"), Path()], scratch)
        assert [file.name for file in raw.files] == ["store/1.png"]
        assert [file.name for file in Raw([tmp_path / "Train"], scratch).files] == ["Train/1.png"]

    def test_a_rar_is_to_be_unpacked_first(self, tmp_path, scratch):
        (tmp_path / "Drishti.rar").write_bytes(b"Rar!")
        with pytest.raises(DataError, match=r"Drishti.rar: .rar files cannot be read: unpack it, and give the folder"):
            Raw([tmp_path / "Drishti.rar"], scratch)
        raw = Raw([tmp_path], scratch)
        assert [str(each.path.name) for each in raw.skipped] == ["Drishti.rar"]

    def test_a_path_that_is_not_there(self, tmp_path, scratch):
        with pytest.raises(DataError, match="no such folder or archive"):
            Raw([tmp_path / "none.zip"], scratch)

    def test_a_link_that_leads_nowhere_is_told_when_it_is_read(self, tmp_path, scratch):
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / "1.png").symlink_to(tmp_path / "gone.png")
        assert [file.name for file in Raw([tmp_path / "raw"], scratch).files] == ["raw/1.png"]

    @pytest.mark.parametrize("name", ["raw.zip", "raw.tar.gz", "raw.tar"])
    def test_a_cut_archive_is_named(self, name, tmp_path, scratch):
        path = zipped(TREE, tmp_path / name) if name == "raw.zip" else tarred(TREE, tmp_path / name)
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(DataError, match=f"{name}: not a whole zip or tar archive"):
            Raw([path], scratch)

    def test_a_damaged_member_is_named_and_the_others_are_read(self, tmp_path, scratch):
        path = tmp_path / "raw.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", b"one")
            archive.writestr("b.png", b"two")
        path.write_bytes(path.read_bytes().replace(b"one", b"oui", 1))
        contents, problems = read(Raw([path], scratch))
        assert contents == {"raw.zip/a.png": None, "raw.zip/b.png": b"two"}
        assert len(problems) == 1 and "raw.zip/a.png: cannot be unpacked" in problems[0]


class TestUntrusted:
    @pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "set/../../evil.png", "C:/evil.png"])
    @pytest.mark.parametrize("form", [zipped, tarred])
    def test_a_name_that_leads_out_is_refused(self, name, form, tmp_path, scratch):
        path = form({name: b"x"}, tmp_path / "raw")
        with pytest.raises(DataError, match="a name that leads out of its archive"):
            Raw([path], scratch)
        assert not list(scratch.iterdir())

    def test_links_and_devices_in_a_tar_are_left_out(self, tmp_path, scratch):
        members = []
        for name, kind in (("s.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            members.append(info)
        raw = Raw([tarred(TREE, tmp_path / "raw.tar", members=members)], scratch)
        assert set(read(raw)[0]) == {f"raw.tar/{name}" for name in TREE}
        assert sorted(each.path.name for each in raw.skipped) == ["d.png", "h.png", "s.png"]

    def test_a_link_in_a_zip_is_left_out(self, tmp_path, scratch):
        info = zipfile.ZipInfo("s.png")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
            archive.writestr(info, "/etc/passwd")
        raw = Raw([tmp_path / "raw.zip"], scratch)
        assert not raw.files and [each.path.name for each in raw.skipped] == ["s.png"]

    def test_nothing_is_written_under_a_name_from_an_archive(self, tmp_path, scratch):
        raw = Raw([zipped(TREE, tmp_path / "raw.zip")], scratch)
        read(raw)
        assert sorted(path.name for path in scratch.iterdir()) == ["1.png", "2.png"]

    @pytest.mark.parametrize(
        ("module", "bound", "value", "match"),
        [
            (archives, "MOST_FILES", 1, "more than 1 files in it"),
            (raw_module, "MOST_FILES", 1, "more than 1 files; give the download of this data set alone"),
            (archives, "MOST_CONTENT", 100_000, "it would unpack to more than 0 GiB"),
            (archives, "MOST_RATIO", 100, "it would unpack to 100000 bytes from"),
            (raw_module, "MOST_UNPACKED", 100_000, "more than 0 GiB to unpack"),
        ],
    )
    def test_bounds(self, module, bound, value, match, tmp_path, scratch, monkeypatch):
        path = zipped({"a.png": b"a", "b.png": bytes(100_000)}, tmp_path / "raw.zip")
        monkeypatch.setattr(module, bound, value)
        with pytest.raises(DataError, match=match):
            read(Raw([path], scratch))
        assert not list(scratch.iterdir())

    def test_an_archive_that_is_packed_like_a_bomb(self, tmp_path, scratch, monkeypatch):
        monkeypatch.setattr(raw_module, "FREE", 1000)
        path = zipped({"inner.zip": bytes(100_000)}, tmp_path / "raw.zip")
        with pytest.raises(DataError, match="packed too well"):
            Raw([path], scratch)

    def test_archives_that_go_on_in_each_other(self, tmp_path, scratch):
        path = zipped(TREE, tmp_path / "0.zip")
        for depth in range(1, raw_module.DEEPEST + 1):
            path = zipped({path.name: path.read_bytes()}, tmp_path / f"{depth}.zip")
        with pytest.raises(DataError, match="archives in each other"):
            Raw([path], scratch)

    def test_a_file_larger_than_it_says_is_a_problem(self, tmp_path, scratch, monkeypatch):
        monkeypatch.setattr(raw_module, "MOST_BYTES", 2)
        contents, problems = read(Raw([zipped(TREE, tmp_path / "raw.zip")], scratch))
        assert set(contents.values()) == {None} and "3 bytes, more than 2" in problems[0]

    def test_an_encrypted_archive_is_named(self, tmp_path, scratch):
        path = zipped({"a.png": b"one"}, tmp_path / "raw.zip")
        content = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(mark) + offset] |= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"raw.zip/a.png: encrypted"):
            Raw([path], scratch)
