from __future__ import annotations

import pytest

from fundus_seg.runs.atomic import atomic_folder


def test_a_folder_appears_complete(tmp_path):
    with atomic_folder(tmp_path / "new" / "folder") as staged:
        (staged / "part").touch()
        assert not (tmp_path / "new" / "folder").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    assert (tmp_path / "new" / "folder" / "part").is_file()
    assert (tmp_path / "new" / "folder").stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_interruption_leaves_nothing(tmp_path, interruption):
    with pytest.raises(interruption), atomic_folder(tmp_path / "folder") as staged:
        (staged / "part").touch()
        raise interruption
    assert not list(tmp_path.iterdir())


def test_the_loser_of_a_race_deletes_its_own(tmp_path):
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "folder") as loser:
        (loser / "loser").touch()
        with atomic_folder(tmp_path / "folder") as winner:
            (winner / "winner").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "winner"]
