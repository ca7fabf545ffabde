"""JanusFlow under its published names: see `janus.janusflow.models`."""
