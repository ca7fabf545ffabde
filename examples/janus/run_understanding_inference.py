"""Ask a Janus, Janus-Pro or JanusFlow model about an image.

    python examples/janus/run_understanding_inference.py --model_path deepseek-ai/Janus-Pro-1B \
        --image_file examples/images/shapes.png --question "How many circles are there?" --dtype bfloat16

The flags are those of PaddleMIX's script of the same name.
"""

import argparse
import sys
from pathlib import Path

import openjanus

IMAGE = Path(__file__).parents[1] / "images" / "shapes.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model_path", default="deepseek-ai/Janus-1.3B", help="folder, Hugging Face id or bundled model")
    parser.add_argument("--image_file", default=str(IMAGE))
    parser.add_argument("--question", default="Describe this image.")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    arguments = parser.parse_args()

    model = openjanus.load(arguments.model_path, dtype=arguments.dtype)
    print(model.understand(arguments.question, images=[arguments.image_file]))


if __name__ == "__main__":
    try:
        main()
    except openjanus.JanusError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
