"""Bad requests, all of them, leave every file alone: a server notes each file it opens, and what is around it is compared."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.live import SHAPES
from serve.server_process import ROOT, command
from serve.test_bad_input import BY_HAND, CHAT, FORM, FORMS, IMAGES, JSON, NAMES, RAW, helpful, part

pytest.importorskip("gradio", reason="the page needs gradio")
# What a server notes of itself, from before its first import to its end. What is opened for the notes is opened before.
WATCHED = """
import json, os, sys
notes = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, arguments):
    if event == "open" or event.split(".")[0] in ("os", "shutil", "tempfile", "subprocess", "pty", "ctypes"):
        os.write(notes, (json.dumps([event, *(one if isinstance(one, int) else str(one) for one in arguments)]) + "\\n").encode())
sys.addaudithook(watch)
from openjanus.cli import main
sys.exit(main(sys.argv[1:]))
"""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# They look and change nothing. ctypes: how libraries are called that have been loaded.
LOOKS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr", "os.getenv", "ctypes.")


@dataclass
class Watched:
    """A server that notes what it does with files. folder: holds its home, its temporary folder, where it runs, and uploads."""

    url: str
    folder: Path
    notes: Path

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    def noted(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.notes.read_text(encoding="utf-8").splitlines()]

    def files(self) -> dict[str, tuple[int, int, int]]:
        """All there is but uploads, with size, time and number."""
        found = [path for path in self.folder.rglob("*") if not path.is_relative_to(self.uploads)]
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns, path.lstat().st_ino) for path in found}

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **body)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder, notes = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("notes") / "notes"
    places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home/cache", "GRADIO_TEMP_DIR": "uploads"}
    for place in [*places.values(), "work"]:
        (folder / place).mkdir(parents=True)
    environment = {name: str(folder / place) for name, place in places.items()}
    environment |= {"NOTES": str(notes), "PYTHONDONTWRITEBYTECODE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with command(program=("-c", WATCHED), page=True, cwd=folder / "work", environment=environment) as (_, url):
        yield Watched(url, folder, notes)


def changes(noted: list[list[Any]]) -> list[list[Any]]:
    """Of what was noted all that may change a file."""
    found = []
    for event, *arguments in noted:
        if event == "open":
            _, mode, flags = arguments
            writes = isinstance(flags, int) and flags & WRITES
            # A large form lies in a file without a name: a folder is opened, and it is gone with its request.
            if (writes or set(str(mode)) & set("wax+")) and not Path(str(arguments[0])).is_dir():
                found.append([event, *arguments])
        elif not event.startswith(LOOKS):
            found.append([event, *arguments])
    return found


def readings(noted: list[list[Any]]) -> list[str]:
    """Files that were opened and are no part of Python, of its packages or of this one."""
    own = [Path(one).resolve() for one in (sys.prefix, sys.base_prefix, ROOT / "src")]
    opened = [str(one[1]) for one in noted if one[0] == "open" and one[1] and not str(one[1]).isdigit()]
    return [
        name for name in opened if not (Path(name).is_dir() or any(Path(name).resolve().is_relative_to(place) for place in own))
    ]


def test_what_changes_a_file_is_noticed(watched: Watched):
    """Else the tests below could not fail."""
    noted = watched.noted()
    assert any(name.endswith("weights.safetensors") or "janus-tiny" in name for name in (str(one[1]) for one in noted))
    assert changes([["open", "/x", "w", 524865], ["open", "/x", "r", 0], ["os.rename", "a", "b", -1, -1]]) == [
        ["open", "/x", "w", 524865],
        ["os.rename", "a", "b", -1, -1],
    ]
    assert readings([["open", "/etc/passwd", "r", 0], ["open", os.__file__, "r", 0]]) == ["/etc/passwd"]
    before = len(noted)
    watched.post("/gradio_api/upload", files={"files": ("a.png", SHAPES.read_bytes())})
    assert any(str(watched.uploads) in str(one) for one in changes(watched.noted()[before:])), "what a good upload writes is seen"


def test_bad_requests_touch_no_file(watched: Watched):
    # Large enough to be kept in a file by those who keep forms in files; the first finds out, by writing, where that may be.
    large = part("file", b"no image" * 500_000, "a.png") + part("question", b"What?") + b"--x--\r\n"
    helpful(watched.post("/understand_image_and_question/", content=large, headers=FORM))
    files, before = watched.files(), len(watched.noted())
    for _, path, body, _ in BY_HAND:
        helpful(watched.post(path, content=json.dumps(body).encode(), headers=JSON))
    for name, content, headers in RAW:
        for path in (CHAT, IMAGES) if name != "an odd type" else ():
            helpful(watched.post(path, content=content, headers=headers))
    for path, fields in FORMS:
        helpful(watched.post(path, content=b"".join(fields) + b"--x--\r\n", headers=FORM))
    for name in NAMES:
        form = part("file", b"no image" * 500_000, name) + part("question", b"What?") + b"--x--\r\n"
        helpful(watched.post("/understand_image_and_question/", content=form, headers=FORM))
    assert watched.post(CHAT, content=b" " * (40 << 20), headers=JSON).status_code == 413
    noted = watched.noted()[before:]
    assert not changes(noted)
    assert not readings(noted)
    assert watched.files() == files


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        f"/gradio_api/file={SHAPES}",
        "/gradio_api/file=http://169.254.169.254/",
        "/gradio_api/proxy=http://127.0.0.1:9/",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/%2e%2e%2f%2e%2e%2f%2e%2e%2fetc/passwd",
        "/gradio_api/custom_component/a/b/c/../../../../etc/passwd",
        "/pictures/..%2f..%2fetc%2fpasswd",
        "/pictures/%2e%2e",
    ],
)
def test_no_path_leads_to_a_file_of_the_machine(watched: Watched, path: str):
    files, before = watched.files(), len(watched.noted())
    answer = httpx.get(watched.url + path, timeout=60)
    helpful(answer)
    assert "root:" not in answer.text and len(answer.text) < 1000
    noted = watched.noted()[before:]
    assert not changes(noted) and not readings(noted) and watched.files() == files


NOT_UPLOADED = ["/etc/passwd", str(SHAPES), "uploads/../../x.png", "http://127.0.0.1:9/a.png", "", "a\0.png", "\ud800", 5, ["a"]]


@pytest.mark.parametrize("path", NOT_UPLOADED)
def test_a_file_of_the_machine_is_not_shown_to_the_page(watched: Watched, path: Any):
    files, before = watched.files(), len(watched.noted())
    asked = {"text": "What is it?", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    body = json.dumps({"data": [asked, None, "janus-tiny", 0, 5, None], "fn_index": 0, "session_hash": "somebody"}).encode()
    assert "uploaded" in helpful(watched.post("/gradio_api/queue/join", content=body, headers=JSON))["message"]
    noted = watched.noted()[before:]
    assert not changes(noted) and not readings(noted) and watched.files() == files


def test_what_is_uploaded_lies_among_the_pages_uploads_whatever_it_is_called(watched: Watched):
    files, before = watched.files(), len(watched.noted())
    for name in [*NAMES, 'a.png"\r\nX-Evil: 1\r\n\r\nevil', "..", "a/../../b.png", "~/.profile"]:
        body = part("files", b"something", name) + b"--x--\r\n"
        answer = watched.post("/gradio_api/upload", content=body, headers=FORM)
        assert answer.status_code == 200 or helpful(answer)
        assert "x-evil" not in answer.headers
    touched = {str(one[1]) for one in changes(watched.noted()[before:]) if one[0] == "open"}
    assert all(Path(os.path.realpath(name)).is_relative_to(watched.uploads.resolve()) for name in touched), touched
    assert watched.files() == files
