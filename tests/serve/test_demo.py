"""The published demo's two endpoints: what their clients send, and what they get."""

from email import message_from_bytes
from io import BytesIO

import httpx
import numpy as np
from PIL import Image

from serve.live import SHAPES, Live


def test_a_question_about_an_image_is_answered(live: Live):
    own = live.own()
    files = {"file": ("shapes.png", SHAPES.read_bytes(), "image/png")}
    asked = {"question": "How many circles are there?", "seed": 3, "top_p": 0.9, "temperature": 0.0}
    answer = live.post("/understand_image_and_question/", files=files, data=asked)
    assert answer.json() == {"response": own.understand("How many circles are there?", [SHAPES])}
    usual = live.post("/understand_image_and_question/", files=files, data={"question": "How many circles are there?"})
    warm = own.understand("How many circles are there?", [SHAPES], seed=42, top_p=0.95, temperature=0.1)
    assert usual.json() == {"response": warm}


def test_five_pictures_come_as_the_parts_of_one_body(live: Live):
    own = live.own()
    answer = live.post("/generate_images/", data={"prompt": "a red circle", "guidance": 3.0})
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + answer.content)
    assert message.get_content_type() == "multipart/related" and not message.defects
    parts = [part for part in message.walk() if part.get_content_type() == "image/png"]
    pictures = [Image.open(BytesIO(part.get_payload(decode=True))) for part in parts]
    assert [picture.size for picture in pictures] == [(1024, 1024)] * 5
    expected = own.generate("a red circle", n=5, seed=12345, guidance=3.0)
    for picture, own in zip(pictures, expected, strict=True):
        large = np.asarray(own.resize((1024, 1024), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(np.asarray(picture).astype(int) - large).mean() < 1
    assert [int(part["Content-Length"]) for part in parts] == [len(part.get_payload(decode=True)) for part in parts]


def test_a_client_that_leaves_frees_the_model(live: Live):
    with httpx.stream("POST", f"{live.url}/generate_images/", data={"prompt": "a red circle"}, timeout=60) as stream:
        assert stream.status_code == 200
    assert live.settles(10)
