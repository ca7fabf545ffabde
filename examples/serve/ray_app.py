"""openjanus behind Ray Serve: the same application, as many replicas as you like.

pip install 'ray[serve]'
serve run examples.serve.ray_app:build model=deepseek-ai/Janus-Pro-1B replicas=2 gpus=1    # from the repository's folder
"""

import os

from fastapi import FastAPI
from ray import serve

from openjanus.janus import load
from openjanus.serve.app import create_app
from openjanus.serve.settings import ServeSettings
from openjanus.serve.worker import SICK


def build(arguments: dict[str, str]) -> serve.Application:
    """The deployment: each replica is a process with a model of its own, and with so many cpus and gpus."""
    model = arguments.get("model", "janus-tiny")
    settings = ServeSettings(keys=tuple(os.environ.get("OPENJANUS_API_KEYS", "").split()))

    def app() -> FastAPI:
        return create_app([(model, load(model))], settings)

    @serve.deployment(
        name="openjanus",
        num_replicas=int(arguments.get("replicas", "1")),
        max_ongoing_requests=1000,  # the application refuses what is too much, and probes are answered meanwhile
        ray_actor_options={"num_cpus": float(arguments.get("cpus", "1")), "num_gpus": float(arguments.get("gpus", "0"))},
    )
    @serve.ingress(app)
    class Replica:
        def check_health(self) -> None:
            """Ray starts a replica again whose model is broken."""
            if any(worker.state in SICK for worker in self.app.state.service.workers.values()):  # type: ignore[attr-defined]
                raise RuntimeError("the model works no more")

    return Replica.bind()
