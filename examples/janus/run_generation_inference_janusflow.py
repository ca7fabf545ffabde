"""Paint images with a JanusFlow model into generated_samples/.

    python examples/janus/run_generation_inference_janusflow.py --model_path deepseek-ai/JanusFlow-1.3B \
        --inference_step 30 --prompt "a fox reading, woodcut" --dtype bfloat16

The flags are those of PaddleMIX's script of the same name.
"""

import argparse
import sys
from pathlib import Path

import openjanus


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model_path", default="deepseek-ai/JanusFlow-1.3B", help="folder, Hugging Face id or bundled model")
    parser.add_argument("--inference_step", type=int, default=30, help="steps from noise to image")
    parser.add_argument("--prompt", default="A close-up of a red circle left of a blue star, on grey paper.")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    arguments = parser.parse_args()

    model = openjanus.load(arguments.model_path, dtype=arguments.dtype)
    folder = Path("generated_samples")
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(model.generate(arguments.prompt, n=2, guidance=2.0, steps=arguments.inference_step)):
        path = folder / f"img_{i}.png"
        image.save(path)
        print(path)


if __name__ == "__main__":
    try:
        main()
    except openjanus.JanusError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
