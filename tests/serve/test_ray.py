"""examples/serve/ray_app.py answers behind Ray Serve as the server alone does. Needs `pip install 'ray[serve]'`."""

import base64
import os
import socket
import sys
from collections.abc import Callable, Iterator

import httpx
import pytest
from openai import OpenAI

from serve.live import SHAPES, bundled, eventually
from serve.server_process import ROOT

ray = pytest.importorskip("ray", reason="Ray is not among the tests' needs: pip install 'ray[serve]'")
serve = pytest.importorskip("ray.serve", reason="Ray Serve is not among the tests' needs: pip install 'ray[serve]'")
pytestmark = [pytest.mark.multiproc, pytest.mark.slow, pytest.mark.timeout(900)]
KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def deploy() -> Iterator[Callable[..., str]]:
    """Runs the deployment with its arguments, and returns where it is."""
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        patch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        patch.setattr(sys, "path", [str(ROOT), *sys.path])
        patch.setenv("RAY_worker_niceness", "0")  # else a busy machine never lets its processes run
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        free.close()
        ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, object_store_memory=100_000_000)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        from examples.serve.ray_app import build

        def run(**arguments: str) -> str:
            serve.run(build(arguments))
            return f"http://127.0.0.1:{port}"

        yield run
        serve.shutdown()
        ray.shutdown()


def test_one_replica_answers_as_the_model_alone(deploy: Callable[..., str]):
    url = deploy()
    assert httpx.get(f"{url}/ready").json() == {"ready": True, "models": {"janus-tiny": "ready"}}
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
    check_answers(client, "janus-tiny")
    refused = httpx.post(f"{url}/v1/images/generations", json={"prompt": "a red circle", "n": -1})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "n"

    def given_up() -> float:
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("openjanus_given_up_total{"))

    before = given_up()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/v1/images/generations", json={"prompt": "a red circle", "n": 10}, timeout=httpx.Timeout(60, read=0.1))
    assert eventually(lambda: given_up() > before), "a client that leaves frees the model"


def test_two_replicas_share_the_work_and_ask_for_keys(deploy: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENJANUS_API_KEYS", KEY)
    url = deploy(model="janusflow-tiny", replicas="2")
    assert httpx.get(f"{url}/v1/models").status_code == 401
    client = OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=120)
    check_answers(client, "janusflow-tiny")
    painted = client.images.generate(prompt="a red circle", response_format="url", extra_body={"seed": 7})
    assert painted.data and painted.data[0].url
    link = painted.data[0].url
    # Only the replica that painted it has it: the other is asked, too.
    found: set[int] = set()
    assert eventually(lambda: found.add(httpx.get(link).status_code) or found == {200, 404}, 60)


def check_answers(client: OpenAI, name: str) -> None:
    """Chat and pictures, at once and as streams, come to what the model says and paints by itself."""
    link = "data:image/png;base64," + base64.b64encode(SHAPES.read_bytes()).decode()
    words = {"type": "text", "text": "How many circles are there?"}
    question = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": link}}, words]}]
    expected = bundled(name).understand("How many circles are there?", [SHAPES])
    answer = client.chat.completions.create(model=name, messages=question)  # type: ignore[call-overload]
    assert answer.choices[0].message.content == expected
    stream = client.chat.completions.create(model=name, messages=question, stream=True)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == expected
    events = list(client.images.generate(prompt="a red circle", stream=True, partial_images=2, extra_body={"seed": 7}))
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"]
    pictures = client.images.generate(prompt="a red circle", extra_body={"seed": 7}).data
    assert pictures and pictures[0].b64_json == events[-1].b64_json
