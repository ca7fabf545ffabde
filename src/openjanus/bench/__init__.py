"""Speed and memory on this machine, beside a peer in the same run, with random weights of the published sizes."""
