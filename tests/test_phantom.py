import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fundus_seg.errors import DataError, UsageError
from fundus_seg.phantom import make as phantom
from fundus_seg.phantom.domains import PHANTOM_DOMAINS
from fundus_seg.phantom.eye import Outline
from fundus_seg.phantom.make import PHANTOM_MARKER, PHANTOM_VERSION, draw_case, make_phantom

PER_DOMAIN = 3
FOLDERS = {"A": "Domain1", "B": "Domain2", "C": "Domain3", "D": "Domain4"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("phantom") / "fundus", PER_DOMAIN, seed=0)


@pytest.fixture(scope="module", params=list(PHANTOM_DOMAINS))
def cases(request):
    return [draw_case(request.param, index, seed=0) for index in range(3)]


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def neighbours(mask):
    """Every pixel's four neighbours, the frame's border left out."""
    return np.stack([mask[:-2, 1:-1], mask[2:, 1:-1], mask[1:-1, :-2], mask[1:-1, 2:]])


def test_layout_and_split(root):
    for domain, folder in FOLDERS.items():
        for split, indices in (("train", (0, 1)), ("test", (2,))):
            expected = [f"phantom-{domain}-{index:03d}.png" for index in indices]
            for kind in ("image", "mask"):
                assert sorted(path.name for path in (root / folder / split / "ROIs" / kind).iterdir()) == expected
    assert len(digests(root)) == 4 * PER_DOMAIN * 2 + 1


def test_files_hold_what_is_drawn(root):
    rois = root / "Domain3" / "test" / "ROIs"
    image, mask = draw_case("C", 2, seed=0)
    with Image.open(rois / "image" / "phantom-C-002.png") as file:
        assert file.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(file), image)
    with Image.open(rois / "mask" / "phantom-C-002.png") as file:
        assert file.mode == "L"
        np.testing.assert_array_equal(np.asarray(file), mask)


def test_marker_says_what_it_is(root):
    marker = json.loads((root / PHANTOM_MARKER).read_text(encoding="utf-8"))
    assert "no patient" in marker.pop("what")
    assert marker == {"version": PHANTOM_VERSION, "seed": 0, "per_domain": PER_DOMAIN}


def test_split_takes_the_first_two_thirds(tmp_path, monkeypatch):
    case = draw_case("A", 0, seed=0)
    monkeypatch.setattr(phantom, "draw_case", lambda domain, index, seed: case)
    seen = []
    root = make_phantom(tmp_path / "fundus", per_domain=4, on_case=lambda: seen.append(None))
    assert len(seen) == 16
    assert len(list(root.glob("Domain2/train/ROIs/mask/*.png"))) == 3  # 8/3, rounded
    assert [path.stem for path in root.glob("Domain2/test/ROIs/mask/*.png")] == ["phantom-B-003"]


def test_same_seed_same_bytes(root, tmp_path):
    assert digests(make_phantom(tmp_path / "again", PER_DOMAIN, seed=0)) == digests(root)


def test_a_case_depends_on_seed_domain_and_index_alone():
    image, mask = draw_case("B", 5, seed=7)
    others = [draw_case("B", 5, seed=8), draw_case("B", 6, seed=7), draw_case("A", 5, seed=7)]
    again = draw_case("B", 5, seed=7)
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], mask)
    for other_image, other_mask in others:
        assert (other_image != image).any()
        assert (other_mask != mask).any()


def test_arrays_and_coding(cases):
    for image, mask in cases:
        assert image.shape == (800, 800, 3)
        assert mask.shape == (800, 800)
        assert image.dtype == mask.dtype == np.uint8
        assert np.unique(mask).tolist() == [0, 128, 255]


def test_rim_lies_all_around_the_cup(cases):
    for _, mask in cases:
        cup = mask[1:-1, 1:-1] == 0
        assert (neighbours(mask)[:, cup] != 255).all()
        assert (mask[[0, -1]] == 255).all()  # the disc lies inside the frame
        assert (mask[:, [0, -1]] == 255).all()


def test_disc_is_centred_and_of_plausible_size(cases):
    for _, mask in cases:
        rows, columns = np.nonzero(mask < 255)
        assert abs(rows.mean() - 400) < 60
        assert abs(columns.mean() - 400) < 60
        assert 0.35 < np.ptp(rows) / 800 < 0.9


def test_cup_is_paler_than_rim_and_rim_than_fundus(cases):
    for image, mask in cases:
        cup, rim, fundus = (np.median(image[mask == grey], axis=0) for grey in (0, 128, 255))
        assert cup[1] > rim[1] + 5
        assert (rim > fundus).all()


def test_domains_differ_in_colour():
    balance = {}  # red over green: what the camera makes of a fundus, whatever the exposure
    for domain in PHANTOM_DOMAINS:
        drawn = [draw_case(domain, index, seed=0) for index in range(4)]
        red, green, _ = np.mean([image[mask == 255].mean(axis=0) for image, mask in drawn], axis=0)
        balance[domain] = red / green
    assert max(balance, key=balance.__getitem__) == "B"
    assert min(balance, key=balance.__getitem__) == "D"
    assert balance["B"] > 1.2 * balance["D"]


def test_points_are_confined_along_their_own_direction():
    circle = Outline(np.array([0.5, 0.5]), np.full(180, 0.2))
    points = np.array([[0.5, 0.9], [0.6, 0.5], [0.3, 0.5]])
    np.testing.assert_allclose(circle.confine(points, 0.5), [[0.5, 0.6], [0.6, 0.5], [0.4, 0.5]])


def test_unknown_domain_is_refused():
    with pytest.raises(UsageError, match="unknown phantom domain 'a'"):
        draw_case("a", 0, seed=0)


@pytest.mark.parametrize(("options", "message"), [({"per_domain": 2}, "at least 3"), ({"seed": -1}, "seed")])
def test_impossible_arguments_are_refused(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        make_phantom(tmp_path / "fundus", **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder") as refused:
        make_phantom(tmp_path, PER_DOMAIN)
    assert str(tmp_path) in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "fundus").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        make_phantom(tmp_path / "fundus", PER_DOMAIN)
    with pytest.raises(DataError, match="cannot be written"):
        make_phantom(tmp_path / "fundus" / "below", PER_DOMAIN)


def test_an_empty_folder_is_filled(tmp_path, monkeypatch):
    case = draw_case("A", 0, seed=0)
    monkeypatch.setattr(phantom, "draw_case", lambda domain, index, seed: case)
    assert (make_phantom(tmp_path, PER_DOMAIN) / PHANTOM_MARKER).is_file()


@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, interruption, there_before):
    out, case = tmp_path / "fundus", draw_case("A", 0, seed=0)
    if there_before:
        out.mkdir()

    def interrupted(domain, index, seed):
        if domain == "B":
            assert not out.exists() or not list(out.iterdir())
            raise interruption
        return case

    monkeypatch.setattr(phantom, "draw_case", interrupted)
    with pytest.raises(interruption):
        make_phantom(out, PER_DOMAIN)
    assert [path for path in tmp_path.rglob("*") if path != out] == []


def test_the_loser_of_a_race_keeps_the_winners_folder(tmp_path, monkeypatch):
    out, case = tmp_path / "fundus", draw_case("A", 0, seed=0)

    def overtaken(domain, index, seed):
        out.mkdir(exist_ok=True)
        (out / "winner").touch()
        return case

    monkeypatch.setattr(phantom, "draw_case", overtaken)
    with pytest.raises(DataError, match="cannot be written"):
        make_phantom(out, PER_DOMAIN)
    assert [path.name for path in tmp_path.rglob("*")] == ["fundus", "winner"]
