"""Contours, polygons, MATLAB files and tables of downloads: what they hold, and what is refused."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import scipy.io
from raw_sets import CUP, DISC, contour, mat, polygons
from raw_trees import HEIGHT, WIDTH, drawn, greys

from fundus_seg.datasets import contours, matlab
from fundus_seg.datasets.contours import labelme, outlined
from fundus_seg.datasets.matlab import mat_labels
from fundus_seg.datasets.tables import records
from fundus_seg.errors import DataError

FRAME = HEIGHT, WIDTH
WHOLE = np.stack(drawn())


def read(reader, path, content, rules=None):
    path.write_bytes(content)
    return reader([path], FRAME, rules)


class TestContours:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"\n", b"\r\n"),
            (b" ", b"\t"),
            (b" ", b", "),
            (b"\n", b"\n\n"),
            (b"1.6000000e+01", b"\xef\xbb\xbf16"),
            (b".", b","),
        ],
    )
    def test_points_as_they_are_written(self, old, new, tmp_path):
        content = contour(DISC)
        content = content.replace(old, new, 1) if new.startswith(b"\xef") else content.replace(old, new)
        assert (read(outlined, tmp_path / "a.txt", content)[0] == WHOLE[0]).all()

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", r"a\.txt: a contour of 0 points"),
            (b"1 2\n3 4\n", "a contour of 2 points"),
            (b"1 2\n3 four\n", r"a\.txt:2: not two numbers"),
            (b"1 2 3\n", r"a\.txt:1: not two numbers"),
            (b"1 2\n3 4\nnan 5\n", "leaves its photograph of 48x40"),
            (b"1 2\n3 4\n5 inf\n", "leaves its photograph"),
            (b"1 2\n3 4\n30 45\n", "leaves its photograph"),
            (b"\xff\xfe\x00", "not two numbers"),
        ],
    )
    def test_what_is_no_contour_is_named(self, content, told, tmp_path):
        with pytest.raises(DataError, match=told):
            read(outlined, tmp_path / "a.txt", content)


def test_a_file_that_is_too_large_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(contours, "_MOST_TEXT", 10)
    with pytest.raises(DataError, match=r"a\.txt: more than 0 MiB"):
        read(outlined, tmp_path / "a.txt", contour(DISC))
    with pytest.raises(DataError, match=r"b\.txt: cannot be opened \(No such file"):
        outlined([tmp_path / "b.txt"], FRAME, None)


class TestLabelme:
    def test_areas_and_other_labels(self, tmp_path):
        content = polygons(Disc=DISC, cup=CUP, bv=[[1, 1]])
        assert (read(labelme, tmp_path / "a.json", content) == WHOLE).all()

    def test_no_annotated_cup_is_the_disc_alone(self, tmp_path):
        alone = read(labelme, tmp_path / "a.json", polygons(disc=DISC))
        assert alone.shape == (1, *FRAME) and (alone[0] == WHOLE[0]).all()

    def test_several_polygons_make_one_area(self, tmp_path):
        content = json.loads(polygons(disc=DISC, cup=CUP))
        content["shapes"].append({"label": "disc", "points": CUP})  # inside the other: no hole
        assert (read(labelme, tmp_path / "a.json", json.dumps(content).encode()) == WHOLE).all()

    def test_drawn_at_another_size(self, tmp_path):
        content = json.loads(polygons(disc=DISC, cup=CUP))
        content |= {"imageHeight": 80, "imageWidth": 96}
        assert read(labelme, tmp_path / "a.json", json.dumps(content).encode()).shape == (2, 80, 96)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "not a whole labelme file"),
            (b"[" * 100_000, "not a whole labelme file"),
            (b"[1]", "not a whole labelme file"),
            (b'{"shapes": 1}', "not a whole labelme file"),
            (b'{"shapes": [{"label": "disc", "points": [[1, "x"]]}]}', "not a whole labelme file"),
            (b'{"shapes": [{"label": "disc", "points": [[1, 2, 3], [4, 5, 6]]}]}', "not a whole labelme file"),
            (b'{"shapes": [{"label": "disc", "points": [[1, 1e999], [2, 2], [3, 3]]}]}', "leaves its photograph"),
            (b'{"shapes": [{"label": "disc", "shape_type": "circle", "points": []}]}', "its disc is a circle"),
            (b'{"shapes": [], "imageHeight": 1000000, "imageWidth": 1000000}', "1000000x1000000 pixels"),
            (polygons(cup=CUP), "no polygon of the disc"),
        ],
    )
    def test_what_is_no_annotation_is_named(self, content, told, tmp_path):
        with pytest.raises(DataError, match=told):
            read(labelme, tmp_path / "a.json", content)


class TestMatlab:
    def test_labels(self, tmp_path):
        assert (read(mat_labels, tmp_path / "a.mat", mat()) == WHOLE).all()
        scipy.io.savemat(tmp_path / "b.mat", {"mask": greys(0, 1, 2).astype(float)}, format="4")
        assert (mat_labels([tmp_path / "b.mat"], FRAME, None) == WHOLE).all()

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "not a whole MATLAB file"),
            (mat()[:-60], "not a whole MATLAB file"),
            (mat(other=np.zeros((3, 3))), "no variable `mask`"),
            (mat(mask=np.zeros((3, 3, 3))), "no variable `mask`"),
            (mat(mask="text"), "no variable `mask`"),
            (mat(mask={"x": 1}), "no variable `mask`"),
            (mat(mask=np.array([[0, 128, 255]])), "other values than 0, 1 and 2"),
            (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 64, "save -v7"),
        ],
    )
    def test_what_is_no_mask_is_named(self, content, told, tmp_path):
        with pytest.raises(DataError, match=told):
            read(mat_labels, tmp_path / "a.mat", content)

    def test_a_file_that_is_packed_like_a_bomb(self, tmp_path, monkeypatch):
        monkeypatch.setattr(matlab, "_MOST_UNPACKED", 1 << 20)
        packed = zlib.compress(bytes(1 << 21))
        header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
        tag = np.array([15, len(packed)], "<u4").tobytes()
        with pytest.raises(DataError, match="it unpacks to more than 1 MiB"):
            read(mat_labels, tmp_path / "a.mat", header + tag + packed)


class TestTables:
    def test_cells_under_titles(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_bytes("\ufeffnotes\r\nName , B,label\r\n x ,1,2\r\n\r\nshort\r\ny,3,4\r\n".encode())
        assert [*records(path, "name", "Label")] == [["x", "2"], ["y", "4"]]
        assert [*records(path, 1, "label")] == [["1", "2"], ["3", "4"]]
        assert [*records(path, ("title", "NAME"), "b")] == [["x", "1"], ["y", "3"]]

    def test_a_title_that_is_not_there(self, tmp_path):
        (tmp_path / "a.csv").write_text("a,b\n1,2\n")
        with pytest.raises(DataError, match=r"a\.csv: no row with the titles a, Label or Name; download"):
            records(tmp_path / "a.csv", "a", ("Label", "Name"))
