"""The web page, driven by a browser. Screenshots go to the folder in OPENJANUS_SCREENSHOTS, else to pytest's own."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openjanus.serve.app import create_app
from serve.live import BUNDLED, SHAPES, Live, bundled, eventually, running, slowly

sync = pytest.importorskip("playwright.sync_api", reason="the page is driven with playwright")
pytest.importorskip("gradio", reason="the page needs gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (Debian: apt install chromium)"),
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(600),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 120_000  # milliseconds: machines that run tests are slow and busy


class Visit:
    """A page that is open, with all it has asked for and complained about."""

    def __init__(self, live: Live, page: Any, pictures: Path) -> None:
        self.live, self.page, self._pictures = live, page, pictures
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(live.url)
        page.wait_for_selector("#paint")
        page.wait_for_selector("#written textarea")

    def write(self, words: str) -> None:
        self.page.locator("#written textarea").fill(words)

    def press(self, name: str) -> None:
        self.page.locator(f"#{name}").click()

    def begin_painting(self) -> None:
        """Ask for a picture, and wait until it is being painted."""
        self.write("a blue star")
        self.press("paint")
        self.until(lambda: self.live.worker.open == 1 and "painting" in self.status())

    def ask(self, words: str) -> None:
        self.write(words)
        self.page.locator("#written textarea").press("Enter")

    def status(self) -> str:
        return str(self.page.locator("#status").inner_text())

    def sees(self, words: str) -> None:
        self.page.get_by_text(words).first.wait_for()

    def answers(self) -> list[str]:
        return list(self.page.locator("#chat .bot .message, #chat .message.bot").all_inner_texts())

    def captions(self) -> list[str]:
        return list(self.page.locator("#gallery .caption-label").all_inner_texts())

    def sizes(self) -> list[tuple[int, int]]:
        """Width and height of the chat's pictures, as they are shown."""
        boxes = [picture.bounding_box() for picture in self.page.locator("#chat .image-frame img").all()]
        return [(round(box["width"]), round(box["height"])) for box in boxes]

    def until(self, happens: Any) -> None:
        assert eventually(happens, PATIENCE / 1000)

    def keep(self, name: str) -> None:
        self.page.screenshot(path=str(self._pictures / f"{self.live.name}-{name}.png"), full_page=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("OPENJANUS_SCREENSHOTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module", params=BUNDLED)
def visit(request: pytest.FixtureRequest, browser: Any, screenshots: Path) -> Iterator[Visit]:
    from openjanus.serve.page import mount_page

    with running((request.param,), wrap=mount_page) as live:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        yield Visit(live, page, screenshots)
        page.close()


@pytest.fixture
def fresh(visit: Visit) -> Visit:
    """The page at the beginning of a conversation."""
    visit.press("new")
    visit.until(lambda: not visit.answers() and not visit.captions())
    return visit


def test_a_picture_is_uploaded_and_asked_about_and_the_answer_streams(fresh: Visit):
    fresh.page.locator("#written input[type=file]").set_input_files(str(SHAPES))
    fresh.page.locator("#written .thumbnail-item, #written .thumbnail-wrapper").first.wait_for()
    expected = fresh.live.janus.understand("Describe the picture.", [SHAPES])
    with slowly(0.3):
        fresh.ask("Describe the picture.")
        fresh.until(lambda: any(0 < len(text.strip()) < len(expected) for text in fresh.answers()))
        begun = fresh.answers()[-1].strip()
        fresh.keep("answering")
    fresh.until(lambda: expected in fresh.answers()[-1])
    assert expected.startswith(begun)
    assert fresh.page.locator("#chat .user img").count() == 1
    fresh.keep("answered")


def test_a_picture_is_watched_while_it_is_painted_and_then_used_in_the_chat(fresh: Visit):
    fresh.write("a red circle")
    stop = fresh.page.locator("#stop")
    before = stop.bounding_box()
    with slowly(0.02 if not fresh.live.worker.takes_steps else 0.15):
        fresh.press("paint")
        fresh.until(lambda: fresh.captions() == ["painting"])
        fresh.until(lambda: "steps" in fresh.status())
        assert fresh.page.locator("#status progress").count() == 1
        below = stop.bounding_box()
        fresh.keep("painting")
    fresh.sees("Painted from seed")
    fresh.until(lambda: fresh.captions()[0].startswith("seed "))
    assert len(fresh.captions()) == 1
    fresh.until(lambda: not fresh.status())
    assert before == below == stop.bounding_box(), "no button moves while somebody reaches for it"
    fresh.keep("painted")
    fresh.press("use")
    fresh.page.locator("#written .thumbnail-item, #written .thumbnail-wrapper").first.wait_for()
    fresh.ask("Which shape is it?")
    fresh.until(lambda: len(fresh.answers()) >= 2 and fresh.answers()[-1].strip() not in ("", "Which shape is it?"))
    fresh.until(lambda: not fresh.status().strip())
    # In the painter's message and in the question.
    assert fresh.page.locator("#chat img").count() >= 2
    shares = fresh.page.locator("#chat [aria-label=Share], #chat [title=Share]")
    assert not any(share.is_visible() for share in shares.all()), "nothing offers to send a picture elsewhere"
    fresh.keep("used")


def test_a_picture_is_painted_again_from_its_seed_and_downloaded(fresh: Visit, tmp_path: Path):
    fresh.write("two green squares")
    fresh.press("paint")
    fresh.until(lambda: len(fresh.captions()) == 1 and fresh.captions()[0].startswith("seed "))
    seed = fresh.captions()[0]
    fresh.press("again")
    fresh.until(lambda: fresh.captions() == [seed, seed])
    fresh.page.locator("#gallery .thumbnail-item, #gallery .grid-wrap button").first.click()
    with fresh.page.expect_download() as download:
        fresh.page.locator("#gallery [aria-label=Download], #gallery [title=Download]").first.click()
    path = tmp_path / "picture.png"
    download.value.save_as(path)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.text["prompt"] == "two green squares" and f"seed {image.text['seed']}" == seed
        assert json.loads(image.text["settings"])["model"] == fresh.live.name
    fresh.keep("downloaded")
    fresh.page.keyboard.press("Escape")


def test_painting_stops_when_told_and_frees_the_model(fresh: Visit):
    with slowly(0.6):
        fresh.begin_painting()
        fresh.press("stop")
        fresh.until(lambda: "stopped" in fresh.status())
        assert fresh.live.settles(12), "long before it would have been done"
        time.sleep(1)
    assert "stopped" in fresh.status(), "nothing comes after it"
    assert not fresh.page.get_by_text("Error", exact=True).count()
    assert "Paint: a blue star" in fresh.page.locator("#chat").inner_text()
    fresh.keep("stopped")
    fresh.write("a red circle")
    fresh.press("paint")
    fresh.sees("Painted from seed")


def test_an_answer_stops_when_told_and_is_kept_as_far_as_it_came(fresh: Visit):
    with slowly(0.3):
        fresh.ask("Tell me about a red circle.")
        fresh.until(lambda: any(text.strip() for text in fresh.answers()))
        fresh.press("stop")
        fresh.until(lambda: "stopped" in fresh.status())
        assert fresh.live.settles(5)
    assert fresh.answers()[-1].strip()
    assert not fresh.page.get_by_text("Error", exact=True).count()


def test_a_mistake_is_told_in_words_and_nothing_is_lost(fresh: Visit, tmp_path: Path):
    fresh.write("")
    fresh.press("paint")
    alert = fresh.page.locator("#status [role=alert]")
    alert.wait_for()
    assert alert.inner_text() == "The prompt is empty; describe the picture."
    broken = tmp_path / "Broken (1).png"
    broken.write_bytes(SHAPES.read_bytes()[:300])
    fresh.page.locator("#written input[type=file]").set_input_files(str(broken))
    fresh.page.locator("#written .thumbnail-item, #written .thumbnail-wrapper").first.wait_for()
    fresh.ask("What is it?")
    fresh.until(lambda: "the image is truncated or damaged" in fresh.status())
    assert fresh.status().startswith("In Broken"), "the file is named"
    fresh.until(lambda: fresh.page.locator("#written textarea").input_value() == "What is it?")
    assert not fresh.answers(), "a question that was not answered does not stay in the chat"
    fresh.keep("mistake")


def test_settings_are_the_models_own(visit: Visit):
    labels = visit.page.locator("label, .block span").all_inner_texts()
    painted = [label for label in labels if label.startswith(("Steps", "Temperature: 0 takes the likeliest\n"))]
    steps = visit.page.locator("#steps").is_visible()
    assert steps is visit.live.worker.takes_steps, painted
    assert visit.page.locator("#temperature").is_visible() is not steps
    assert "a red circle" in visit.page.locator(".example").all_inner_texts()


def test_the_page_is_used_with_the_keyboard_alone(fresh: Visit):
    fresh.page.locator("#written textarea").focus()
    fresh.page.keyboard.type("a red circle")
    for _ in range(6):
        fresh.page.keyboard.press("Tab")
        if fresh.page.evaluate("document.activeElement.innerText").strip() == "Paint":
            break
    fresh.page.keyboard.press("Enter")
    fresh.sees("Painted from seed")


def test_the_page_fits_a_phone(visit: Visit, browser: Any, screenshots: Path):
    phone = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    small = Visit(visit.live, phone, screenshots)
    small.write("a red circle")
    small.press("paint")
    small.sees("Painted from seed")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390, "nothing is wider than the screen"
    small.keep("phone")
    phone.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_in_the_chat_are_neither_tiny_nor_out_of_proportion(
    visit: Visit, browser: Any, screenshots: Path, tmp_path: Path, width: int
):
    page = browser.new_page(viewport={"width": width, "height": 900})
    shown = Visit(visit.live, page, screenshots)
    for i, (across, down) in enumerate([(48, 48), (1200, 600), (20, 900)]):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (across, down), (0, 90 * i, 200)).save(path)
        page.locator("#written input[type=file]").set_input_files(str(path))
        shown.until(lambda i=i: page.locator("#written .thumbnail-item").count() == i + 1)
    shown.ask("Which shape is it?")
    shown.until(lambda: page.locator("#chat .image-frame img").count() == 3)
    shown.until(lambda: all(height > 1 for _, height in shown.sizes()))
    small, large, tall = shown.sizes()
    assert small == (176, 176)
    assert large[0] > small[0] and abs(large[0] - 2 * large[1]) <= 2
    assert tall[1] <= 300
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown.keep(f"sizes-{width}")
    page.close()


def test_another_model_brings_its_own_settings_and_examples_and_paints_several(browser: Any, screenshots: Path):
    from openjanus.serve.page import mount_page

    models = [("janus-tiny", bundled("janus-tiny")), ("of-the-world", bundled("janusflow-tiny"))]
    with running(wrap=lambda _: mount_page(create_app(models))) as live:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        shown = Visit(live, page, screenshots)
        assert page.locator("#temperature").is_visible() and not page.locator("#steps").is_visible()
        page.get_by_label("Model", exact=True).first.click()
        page.get_by_role("option", name="of-the-world").click()
        page.locator("#steps").wait_for()
        assert not page.locator("#temperature").is_visible()
        shown.sees("a fox reading a book")
        page.locator("#steps input[type=number]").fill("2")
        page.locator("#n input[type=number]").fill("3")
        page.locator(".example").first.click()
        shown.until(lambda: page.locator("#written textarea").input_value().startswith("a fox"))
        shown.press("paint")
        shown.sees("Painted from seeds")
        shown.until(lambda: len(shown.captions()) == 3 and all(caption.startswith("seed ") for caption in shown.captions()))
        first, second, third = sorted(int(caption.split()[1]) for caption in shown.captions())
        assert (second, third) == (first + 1, first + 2)
        worlds = live.service.worker("of-the-world")
        assert live.service.metrics.registry.get_sample_value("openjanus_images_total", {"model": worlds.name}) == 3
        shown.keep("several")
        page.close()


@contextmanager
def limited(browser: Any, screenshots: Path, **limits: int) -> Iterator[Visit]:
    """The page of a server of its own that allows little."""
    from openjanus.serve.page import mount_page

    with running(wrap=mount_page, limits=limits) as live:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        yield Visit(live, page, screenshots)
        page.close()


def test_who_asks_too_often_on_the_page_is_told_so_and_may_still_stop_and_begin_anew(browser: Any, screenshots: Path):
    with limited(browser, screenshots, rate=2) as visit:
        with slowly(0.6):
            visit.begin_painting()
            visit.press("stop")
            visit.until(lambda: "stopped" in visit.status())
        for _ in range(3):
            visit.press("new")
            visit.until(lambda: not visit.status())
            visit.page.locator(".example").first.click()
            visit.until(lambda: visit.page.locator("#written textarea").input_value() == "a red circle")
            visit.write("")
        visit.ask("What is red?")
        visit.until(lambda: visit.answers() and visit.answers()[-1].strip() and not visit.status())
        visit.ask("What is blue?")
        alert = visit.page.locator("#status [role=alert]")
        alert.wait_for()
        assert alert.inner_text().startswith("You may ask 2 times a minute; ask again in")
        visit.until(lambda: visit.page.locator("#written textarea").input_value() == "What is blue?")
        visit.keep("rate")
        answer = visit.live.post("/v1/images/generations", json={"prompt": "a"})
        assert answer.status_code == 429, "one count for the page and the API"


def test_the_page_and_the_api_share_what_a_caller_may_run_at_a_time(browser: Any, screenshots: Path):
    with limited(browser, screenshots, concurrent=1) as visit:
        with slowly(0.6):
            visit.begin_painting()
            asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
            answer = visit.live.post("/v1/chat/completions", json=asked)
            assert answer.status_code == 429 and answer.json()["error"]["code"] == "concurrency_limit"
            other = Visit(visit.live, browser.new_page(), screenshots)
            other.write("a red circle")
            other.press("paint")
            other.until(lambda: "1 of your requests are being answered" in other.status())
            other.page.close()
            visit.press("stop")
            visit.until(lambda: "stopped" in visit.status())
        visit.until(lambda: visit.live.post("/v1/chat/completions", json=asked).status_code == 200)


def test_what_is_refused_at_the_door_is_told_on_the_page(browser: Any, screenshots: Path):
    with limited(browser, screenshots, body_bytes=20_000) as visit:
        visit.ask("word " * 8_000)
        visit.sees("the body has more than 20,000 bytes")
        visit.keep("door")


def test_a_page_that_is_closed_stops_what_it_asked_for(visit: Visit, browser: Any, screenshots: Path):
    with slowly(0.3):
        page = browser.new_page()
        other = Visit(visit.live, page, screenshots)
        other.write("a red circle")
        other.press("paint")
        other.until(lambda: visit.live.worker.open == 1)
        page.close()
        assert visit.live.settles(15)


def test_no_request_has_left_the_machine_and_nothing_complained(visit: Visit):
    """Last: of all that the tests above have done."""
    assert len(visit.asked) > 50
    assert not [url for url in visit.asked if not url.startswith((visit.live.url, "data:", "blob:"))]
    assert not visit.complaints
