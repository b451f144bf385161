from pathlib import Path

import pytest

from refineloc.runtime.errors import VideoError
from refineloc.runtime.video.extract import film_blocks
from refineloc.runtime.video.films import find_films, listed_films


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_at_any_depth_and_what_is_no_film(tmp_path: Path) -> None:
    files(tmp_path, "b.mp4", "deep/er/a b'c.MKV", "deep/映画.mov", "c.txt", "d.wav", "._b.mp4", ".hidden/e.mp4")
    found = find_films([tmp_path])
    assert found == {
        "a b'c": tmp_path / "deep/er/a b'c.MKV",
        "b": tmp_path / "b.mp4",
        "映画": tmp_path / "deep/映画.mov",
    }
    assert list(found) == sorted(found)
    assert list(find_films([tmp_path], sound=True)) == ["a b'c", "b", "d", "映画"]


def test_what_is_named_is_taken_whatever_its_ending_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, "camera.dat", "day1/x.mp4", "day2/y.mp4", "day2/notes.txt", "[1].mp4")
    monkeypatch.chdir(tmp_path)
    assert find_films(["camera.dat", "day*", "./day1/x.mp4", "[1].mp4"]) == {
        "[1]": Path("[1].mp4"),
        "camera": Path("camera.dat"),
        "x": Path("day1/x.mp4"),
        "y": Path("day2/y.mp4"),
    }
    assert list(find_films(["**/*.mp4"])) == ["[1]", "x", "y"]


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "films.txt"
    path.write_bytes("\ufefffilms/a b.mp4\r\n\r\nday*\r\n".encode("utf-16-le"))
    assert listed_films(path) == [Path("films/a b.mp4"), Path("day*")]
    path.write_text("\n \n")
    with pytest.raises(VideoError, match=r"films\.txt: is empty; give a text file"):
        listed_films(path)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a.mp4", "gone.mp4"], "gone.mp4: no such film or folder"),
        (["*.mkv"], r"\*.mkv: there are no films, files that end in .mp4"),
        (["empty"], "empty: there are no films"),
        (["a.mp4", "b"], r"^a\.mp4 and b/a\.avi: would both be video 'a'; rename one"),
        (["b", "..mp4"], "cannot be the name of a video; rename the file"),
    ],
)
def test_bad_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: list[str], message: str) -> None:
    files(tmp_path, "a.mp4", "b/a.avi", "empty/a.txt", "..mp4")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match=message):
        find_films(sources)


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    try:
        (tmp_path / "\udce4.mp4").touch()
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    with pytest.raises(VideoError, match="cannot be the name of a video"):
        find_films([tmp_path])


def test_ten_thousand_films_are_a_block_each_and_none_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10_000):
        (tmp_path / f"{number:05}.mp4").touch()
    monkeypatch.setattr("builtins.open", None)
    films = find_films([tmp_path])
    blocks = film_blocks(tmp_path / "parts", films, {}, {})
    assert [block.names for block in blocks] == [(f"{number:05}",) for number in range(10_000)]
