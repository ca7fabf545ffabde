"""openjanus behind Ray Serve: the same application, as many replicas as you like.

pip install 'ray[serve]'
serve run examples.serve.ray_app:build model=deepseek-ai/Janus-Pro-1B replicas=2 gpus=1    # from the repository's folder
"""

from ray import serve

from openjanus.janus import load
from openjanus.serve.app import create_app


def build(arguments: dict[str, str]) -> serve.Application:
    """The deployment. A replica is a process with a model of its own, and Ray hands requests round. gpus: of each replica."""
    model = arguments.get("model", "janus-tiny")
    replica = serve.ingress(lambda: create_app([(model, load(model))]))()
    deployment = serve.deployment(
        replica,
        name="openjanus",
        num_replicas=int(arguments.get("replicas", "1")),
        max_ongoing_requests=256,
        ray_actor_options={"num_cpus": 1, "num_gpus": float(arguments.get("gpus", "0"))},
    )
    return deployment.bind()
