import pytest
import yaml

from fundus_seg.data.layout import open_root
from fundus_seg.data.shipping import pack, unpack, unpacked
from fundus_seg.errors import DataError
from fundus_seg.phantom.make import make_phantom


def contents(root):
    """The bytes of every photograph and mask, by domain, split and name."""
    return {
        (domain, split, case.name): [file.read_bytes() for file in (case.image, *case.masks[0])]
        for domain in root.domains
        for split in ("train", "test")
        for case in root.cases(domain, split)
    }


@pytest.fixture
def described(draw_root):
    """A YAML file beside two domains."""

    def describe(prefix=""):
        folder = draw_root(domains="AB")
        domains = {
            key: {
                split: {
                    "images": f"{prefix}Domain{number}/{split}/ROIs/image/*.png",
                    "masks": f"{prefix}Domain{number}/{split}/ROIs/mask/{{name}}.png",
                }
                for split in ("train", "test")
            }
            for number, key in enumerate(("north", "south"), start=1)
        }
        (folder / "sub").mkdir()
        path = folder / ("sub/own.yaml" if prefix else "own.yaml")
        path.write_text(yaml.safe_dump({"domains": domains}))
        return path

    return describe


def test_a_folder_arrives_as_it_is_and_once(draw_root, tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "cache"))
    root = open_root(draw_root())
    (root.path / "letters.txt").write_text("not for sending")
    parcel = pack(root)
    assert unpacked(parcel.digest, parcel.entry) is None
    place = unpack(parcel)
    assert unpacked(parcel.digest, parcel.entry) == place
    arrived = open_root(place)
    assert contents(arrived) == contents(root)
    assert not arrived.phantom
    assert not (place / "letters.txt").exists()
    before = place.stat().st_mtime_ns
    assert unpack(parcel) == place
    assert place.stat().st_mtime_ns == before
    assert [entry.name for entry in place.parent.iterdir()] == [place.name]


def test_a_described_root_brings_its_description(described):
    root = open_root(described())
    arrived = open_root(unpack(pack(root)))
    assert arrived.domains == ("north", "south")
    assert contents(arrived) == contents(root)


def test_files_outside_are_refused(described):
    with pytest.raises(DataError, match=r"image/Atest0.png: not below .*sub, so it cannot be sent along"):
        pack(open_root(described("../")))


def test_a_phantom_stays_one(tmp_path):
    make_phantom(tmp_path / "drawn", per_domain=5)
    assert open_root(unpack(pack(open_root(tmp_path / "drawn")))).phantom


def test_a_cache_that_cannot_be_written_is_named(draw_root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FUNDUS_SEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .*; make room, or set \$FUNDUS_SEG_CACHE"):
        unpack(pack(open_root(draw_root())))
