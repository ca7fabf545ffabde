"""The mathematics of Janus: modules and functions on tensors. Sees no tokenizer, no file, no process group."""
