"""openjanus behind Ray Serve: the same application, as many replicas as you like.

pip install 'ray[serve]'
OPENJANUS_MODEL=deepseek-ai/Janus-Pro-1B serve run examples.serve.ray_app:app
"""

import os

from ray import serve

from openjanus.janus import load
from openjanus.serve.app import create_app

MODEL = os.environ.get("OPENJANUS_MODEL", "janus-tiny")


# A replica is a process with a model of its own; on GPUs give it one: ray_actor_options={"num_gpus": 1}. Ray spreads requests.
@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
@serve.ingress(lambda: create_app([(MODEL, load(MODEL))]))
class Replica:
    """One of them."""


app = Replica.bind()
