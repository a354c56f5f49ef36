"""The local page: its measures are those of `predict`, by hand and in headless Chromium; strangers are refused."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from browser import CHROMIUM, MISSING, Browser
from conftest import draw_case
from PIL import Image
from predictions import rows_of

from fundus_seg.app.measure import Measurer
from fundus_seg.app.session import Session
from fundus_seg.data.box import Box
from fundus_seg.errors import DataError
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.roi import AUTO, Roi
from fundus_seg.ops.dispatch import using
from fundus_seg.runs.model_names import STARTER_FILE

BOX = Box(20, 30, 70, 60)


@pytest.fixture(autouse=True)
def _no_kernel_is_compiled():
    with using("portable"):
        yield


def draw(path, size=128, seed=0):
    """A photograph in which an eye is drawn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_case(np.random.default_rng(seed), size)[0].save(path)
    return path


def given(session, file, name=None, roi=AUTO):
    """The photograph of a session, once a file was dropped and measured."""
    photograph = session.place(file.name if name is None else name)
    photograph.path.write_bytes(file.read_bytes())
    session.measure(photograph, roi)
    return photograph


def table_of(session):
    return list(csv.DictReader(io.StringIO(session.table())))


@pytest.fixture(scope="module")
def measurer():
    return Measurer(["starter"])


@pytest.fixture
def session(measurer, tmp_path):
    return Session(measurer, tmp_path / "session")


def text_of(roi):
    return roi if isinstance(roi, str) else f"{roi.x},{roi.y},{roi.width},{roi.height}"


def test_the_table_is_that_of_predict(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [draw(Path(name), seed=number) for number, name in enumerate(("a_OD.png", "=b.png"))]
    Path("bad.jpg").write_bytes(b"no picture")
    table = predict_folder(STARTER_FILE, [*files, Path("bad.jpg")], tmp_path / "out", roi=AUTO)
    for file in (*files, Path("bad.jpg")):
        given(session, file)
    assert session.table() == table.read_text("utf8")
    boxed = predict_folder(STARTER_FILE, files, tmp_path / "boxed", roi=Roi.parse(text_of(BOX)))
    for photograph in session.photographs[:2]:
        session.measure(photograph, Roi.parse(text_of(BOX)))
        assert photograph.measured.enlarged.part == BOX
    assert table_of(session)[:2] == rows_of(boxed)


def test_names_that_no_file_can_have(session, tmp_path):
    file = draw(tmp_path / "plain.png")
    names = ["../../up.png", "a/b\\c.png", "x" * 400 + ".png", "a." + "x" * 400]
    names += ["..", "<img src=x>.png", "nul\0.png"]
    for name in names:
        photograph = given(session, file, name)
        assert photograph.path.resolve().parent.parent == session.folder.resolve()
        assert photograph.measured.whole is not None
    assert [row["photograph"] for row in table_of(session)] == [str(Path(name)) for name in names]


def test_a_name_is_there_once(session, tmp_path):
    file = draw(tmp_path / "eye.png")
    first = given(session, file)
    with pytest.raises(DataError, match=r"a photograph of this name is here already; rename this one"):
        session.place("eye.jpg")
    session.remove(first)
    first.delete()
    assert not first.path.exists()
    assert given(session, file).measured


def test_what_cannot_be_measured_says_why(session, tmp_path, monkeypatch):
    monkeypatch.setenv("FUNDUS_SEG_ID_KEY", "short")
    scan = tmp_path / "scan.dcm"
    scan.write_bytes(bytes(128) + b"DICM")
    photograph = given(session, scan)
    assert photograph.problem == "$FUNDUS_SEG_ID_KEY is shorter than 16 characters, so others could guess it"
    assert table_of(session) == []


def test_a_box_around_the_disc_is_framed_as_in_training(measurer):
    box = measurer.box_around(Box(40, 50, 20, 20))
    assert 20 / box.width == pytest.approx(measurer.framing.middle, rel=0.05)
    assert (box.x + box.width / 2, box.y + box.height / 2) == pytest.approx((50, 60), abs=1)


def test_contours_run_along_the_mask(session, tmp_path):
    shown = given(session, draw(tmp_path / "eye.png")).measured
    numbers = np.array(shown.whole.contours[0].strip("MZ").replace("L", " ").split(), float).reshape(-1, 2)
    width, height = np.ptp(numbers, axis=0) / shown.whole.size[0] * 128
    assert width == pytest.approx(shown.row["disc_width"], abs=2)
    assert height == pytest.approx(shown.row["disc_height"], abs=2)
    assert Image.open(shown.whole.file).size == shown.whole.size


def answer(scope, headers):
    """The status with which the gate answers a request; 200 if it lets it pass."""
    from fundus_seg.app.gate import Gate

    told = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        told.append(message)

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": scope, "method": "POST", "path": "/", "headers": lines}
    asyncio.run(Gate(page, "http://127.0.0.1:8765")(scope, None, send))
    return told[0]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8765", "origin": "http://localhost:8765"}, 200),
        ({"host": "evil.example:8765"}, 403),
        ({"host": "127.0.0.1:80"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-length": str(2**31)}, 413),
        ({"content-length": "-1"}, 411),
        ({"transfer-encoding": "chunked"}, 411),
    ],
)
def test_strangers_and_large_files_are_refused(headers, status):
    pytest.importorskip("starlette")
    headers = {"host": "127.0.0.1:8765"} | headers
    told = answer("http", headers)
    assert told["status"] == status
    assert (b"content-security-policy" in dict(told["headers"])) == (status == 200)
    told = answer("websocket", headers)
    assert told.get("code") == (1008 if status != 200 else None)


def test_without_the_library_the_command_says_how_to_install_it(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    monkeypatch.delitem(sys.modules, "fundus_seg.app.page", raising=False)
    said = command("app", "starter", "--no-browser", code=2).err
    assert said == 'error: the page needs NiceGUI: pip install "fundus-seg[app]"\n'


@contextmanager
def serving(folder, *arguments):
    """The page in a process of its own, whose temporary files are in a folder; its address and its process."""
    (folder / "temporary").mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "COLUMNS": "200"}
    line = [sys.executable, "-c", "from fundus_seg_cli.main import main; main()", "app", "starter", "--no-browser"]
    process = subprocess.Popen(
        [*line, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 0)])
def test_nothing_is_left_when_it_ends(how, code, tmp_path):
    pytest.importorskip("nicegui")
    with serving(tmp_path, "--port", "0") as (address, process):
        assert address.startswith("http://127.0.0.1:")
        assert urlopen(address).status == 200
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(address, headers={"Host": "evil.example"}))
        port = address.rpartition(":")[2]
        with serving(tmp_path / "second", "--port", port) as (_, second):
            assert f"error: --port {port}: cannot be used" in second.communicate()[1]
        process.send_signal(how)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()
    assert [each for each in tmp_path.rglob("*") if each.name not in ("temporary", "second")] == []


ENTRIES = "[...document.querySelectorAll('.entry')].map(each => each.innerText.replaceAll('\\n', ' '))"
SETTLED = "document.querySelectorAll('.entry').length == {} && !document.querySelector('.status.measuring')"
SHOWN = "document.querySelector('.measures dd').innerText"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a server, and a browser."""
    pytest.importorskip("nicegui")
    folder = tmp_path_factory.mktemp("app")
    with serving(folder, "--port", "0") as (address, _), Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield address, browser


def given_to(page, *files, width=1280, dark=False):
    """The browser with a new page, once files were chosen there and are measured."""
    address, browser = page
    browser.open(address, width, dark=dark)
    browser.wait("document.querySelector('input[type=file]')")
    browser.give("input[type=file]", *files)
    browser.wait(SETTLED.format(len(files)))
    return browser


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
class TestBrowser:
    @pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
    def test_a_photograph_is_measured_corrected_and_saved(self, page, width, dark, tmp_path, monkeypatch):
        files = [draw(tmp_path / f"eye{number}.png", seed=number) for number in (1, 2)]
        hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
        hostile.write_bytes(b"no picture")
        browser = given_to(page, *files, hostile, width=width, dark=dark)
        assert "not a medical device" in browser.ask("document.body.innerText")
        said = browser.ask(ENTRIES)
        assert f"{hostile.name} declined" in said
        monkeypatch.chdir(tmp_path)
        plain = rows_of(predict_folder(STARTER_FILE, [Path("eye1.png"), Path("eye2.png")], tmp_path / "o", roi=AUTO))
        for row in plain:
            assert f"{row['photograph']} {float(row['vertical_cdr']):.2f} {row['status']}" in said
        assert browser.ask("document.documentElement.scrollWidth") == width

        browser.ask("[...document.querySelectorAll('.entry')].find(each => each.innerText.includes('eye2')).focus()")
        browser.press("Enter", 13)
        browser.wait("document.querySelector('h2').innerText == 'eye2.png'")
        browser.wait("document.querySelector('.draw img')?.complete")
        assert browser.ask(SHOWN) == f"{float(plain[1]['vertical_cdr']):.2f}"
        browser.drag(".draw", (0.5, 0.4), (0.6, 0.5))
        browser.wait(f"[...document.querySelectorAll('.side input')][0].value != {plain[1]['crop_x']!r}")
        box = ",".join(browser.ask("[...document.querySelectorAll('.side input')].map(each => each.value)"))
        boxed = rows_of(predict_folder(STARTER_FILE, [Path("eye2.png")], tmp_path / "b", roi=Roi.parse(box)))[0]

        browser.page("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        browser.ask("[...document.querySelectorAll('button')].find(b => b.innerText == 'Download the table').click()")
        saved = tmp_path / "saved/cases.csv"
        end = time.monotonic() + 30
        while not saved.exists() and time.monotonic() < end:
            browser.ask("1")
            time.sleep(0.1)
        kept = {row["photograph"]: row for row in rows_of(saved)}
        assert kept["eye1.png"] == plain[0]
        assert kept["eye2.png"] == boxed
        assert kept[hostile.name]["status"] == "declined"
        own = (page[0], f"blob:{page[0]}", "data:")
        strangers = {url for url in browser.requested if not url.startswith(own)}
        assert strangers == set()
        assert browser.complaints == []

    def test_a_second_page_sees_nothing_of_the_first(self, page, tmp_path):
        address, browser = page[0], given_to(page, draw(tmp_path / "mine.png"))
        browser.wait("document.querySelector('.draw img')")
        (picture,) = {url for url in browser.requested if "/pictures/" in url and len(url) > 20} - {
            browser.ask("document.querySelector('.draw img').src")
        }
        assert urlopen(picture).status == 200
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}/pictures/0")
        browser.open(address)
        browser.wait("document.querySelector('.begin')")
        assert browser.ask(ENTRIES) == []

    def test_a_box_by_numbers_and_a_zoom_by_keyboard(self, page, tmp_path):
        browser = given_to(page, draw(tmp_path / "eye.png"))
        browser.wait("document.querySelector('.zoomed img')")
        width = "document.querySelector('.zoomed .stage').offsetWidth"
        whole = browser.ask(width)
        browser.ask("document.querySelector('.zoom [tabindex]').focus()")
        browser.press("ArrowRight", 39)
        browser.wait(f"{width} > {whole}")
        first = "document.querySelector('.side input')"
        browser.ask(f"{first}.focus(); {first}.select()")
        browser.page("Input.insertText", text="10")
        browser.press("Enter", 13)
        browser.wait("document.querySelector('.columns').textContent.includes('given')")
        assert browser.ask(f"{first}.value") == "10"
        browser.wait("document.activeElement.innerText == 'Measure this box'")
        browser.ask(f"{first}.focus(); {first}.select()")
        browser.press("Backspace", 8)
        browser.press("Enter", 13)
        browser.wait("document.body.innerText.includes('Give all four numbers of the box: left, top, width, height')")
