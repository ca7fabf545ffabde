"""What llama.cpp takes for a token of a Llama in Q4_0, of the shape of Janus-Pro-1B's language model with random weights.

    python benchmarks/llama_q4.py FILE.gguf [--tokens 64] [--rounds 3] [--plain]

Run it with an interpreter that has llama-cpp-python, gguf and numpy; openjanus needs none of them. FILE is written if it is not
there (0.9 GB). Prints one JSON object: milliseconds of a token at batch 1, behind a prompt of 16 tokens. To set beside it:
`openjanus bench understand --preset janus-pro-1b --quantize int4`.
"""

import argparse
import ctypes
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

WIDTH, INNER, BLOCKS, HEADS, VOCABULARY = 2048, 5632, 24, 16, 102400
PROMPT = 16


def write(path: Path) -> None:
    """Every matrix in Q4_0, the head and the embedding too: blocks of 32 random numbers of 4 bits with a small scale."""
    from gguf import GGMLQuantizationType, GGUFWriter

    chance = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(1024)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(2)
    writer.add_tokenizer_model("no_vocab")

    def matrix(name: str, outputs: int, inputs: int) -> None:
        blocks = np.empty((outputs, inputs // 32, 18), dtype=np.uint8)
        blocks[..., :2] = np.array([0.01], dtype=np.float16).view(np.uint8)
        blocks[..., 2:] = chance.integers(0, 256, (outputs, inputs // 32, 16), dtype=np.uint8)
        writer.add_tensor(name, blocks.reshape(outputs, -1), raw_dtype=GGMLQuantizationType.Q4_0)

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd.weight", VOCABULARY, WIDTH)
    for block in range(BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{block}.{name}.weight", WIDTH, WIDTH)
        matrix(f"blk.{block}.ffn_gate.weight", INNER, WIDTH)
        matrix(f"blk.{block}.ffn_up.weight", INNER, WIDTH)
        matrix(f"blk.{block}.ffn_down.weight", WIDTH, INNER)
        ones(f"blk.{block}.attn_norm.weight")
        ones(f"blk.{block}.ffn_norm.weight")
    ones("output_norm.weight")
    matrix("output.weight", VOCABULARY, WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def seconds_a_token(path: Path, tokens: int, threads: int, rounds: int, plain: bool) -> list[float]:
    """Of each token of each round; the first round does not count."""
    import llama_cpp as api

    api.llama_backend_init()
    held = api.llama_model_default_params()
    held.use_extra_bufts = not plain
    model = api.llama_model_load_from_file(str(path).encode(), held)
    settings = api.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 512, threads, threads
    found: list[float] = []
    for number in range(rounds + 1):
        context = api.llama_init_from_model(model, settings)
        _decode(api, context, list(range(1, PROMPT + 1)))
        for token in range(tokens):
            start = time.perf_counter()
            _decode(api, context, [token + 100])
            api.llama_get_logits(context)[0]
            if number:
                found.append(time.perf_counter() - start)
        api.llama_free(context)
    return found


def _decode(api: Any, context: Any, tokens: list[int]) -> None:
    held = (ctypes.c_int32 * len(tokens))(*tokens)
    assert api.llama_decode(context, api.llama_batch_get_one(held, len(tokens))) == 0


def main() -> None:
    """Write the file if need be, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    # Version 0.3.36 of llama-cpp-python dies of an illegal instruction where it lays weights out for AMX.
    parser.add_argument("--plain", action="store_true", help="leave the weights as they lie in the file")
    arguments = parser.parse_args()
    if not arguments.file.exists():
        write(arguments.file)
    found = seconds_a_token(arguments.file, arguments.tokens, arguments.threads, arguments.rounds, arguments.plain)
    report = {"median": round(median(found) * 1e3, 3), "min": round(min(found) * 1e3, 3), "count": len(found)}
    print(json.dumps({"bytes": arguments.file.stat().st_size, "threads": arguments.threads, "token_ms": report}))


if __name__ == "__main__":
    main()
