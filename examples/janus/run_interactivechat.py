"""Paint one prompt after the other, with the model loaded once.

    python examples/janus/run_interactivechat.py --model_path deepseek-ai/Janus-Pro-1B --dtype bfloat16

Asks for the number of images, then for prompts; `exit` or Ctrl-D ends it. The flags are those of PaddleMIX's script of the same
name. For a conversation about images use `openjanus chat`.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import openjanus


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model_path", default="deepseek-ai/Janus-1.3B", help="folder, Hugging Face id or bundled model")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    arguments = parser.parse_args()

    model = openjanus.load(arguments.model_path, dtype=arguments.dtype)
    folder = Path("generated_samples")
    folder.mkdir(exist_ok=True)
    number = ask_number("How many images for each prompt? ")
    while (prompt := input("Prompt (exit to leave): ").strip()) != "exit":
        try:
            images = model.generate(prompt, n=number)
        except openjanus.JanusError as error:
            print(f"error: {error}")
            continue
        stem = time.strftime("img_%Y%m%d-%H%M%S_") + re.sub(r"\W+", "_", prompt)[:50]
        for i, image in enumerate(images):
            path = folder / f"{stem}_{i}.png"
            image.save(path)
            print(path)


def ask_number(question: str) -> int:
    """A whole number from 1 on, asked for until one is given."""
    while True:
        answer = input(question).strip()
        if answer.isdigit() and int(answer) > 0:
            return int(answer)
        print(f"{answer!r} is not a whole number from 1 on")


if __name__ == "__main__":
    try:
        main()
    except openjanus.JanusError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except EOFError:
        print()
