"""`openjanus chat`: a conversation at the terminal."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjanus.cli import options
from openjanus.cli.console import NO_MEMORY, fail
from openjanus.errors import JanusError, PromptError

if TYPE_CHECKING:
    from openjanus.janus import Janus
    from openjanus.types import ImageOptions, Message, TextOptions

HELP = """\
  /image PATH       show an image with your next question (may be repeated)
  /generate PROMPT  paint an image
  /reset            forget the conversation
  /save FILE        write the conversation to a new Markdown file
  /help             this list
  /quit             leave (as Ctrl-D); Ctrl-C stops an answer, not the chat"""


def chat(
    model: options.Model = None,
    max_tokens: options.MaxTokens = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy: always the likeliest word.")] = 0.0,
    top_p: options.TopP = 1.0,
    seed: options.Seed = None,
    guidance: options.Guidance = None,
    steps: options.Steps = 30,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder painted images go to.")] = Path("out"),
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    adapter: options.Adapter = None,
) -> None:
    """Talk with a model: text, /image PATH, /generate PROMPT, /reset, /save FILE."""
    from openjanus.cli.console import load_model
    from openjanus.types import ImageOptions, TextOptions

    if sys.stdin is None:
        raise PromptError("chat reads what you type from standard input, which is closed; start it in a terminal")
    text = TextOptions(max_tokens, temperature, top_p, seed=seed)
    image = ImageOptions(seed=seed, guidance=guidance, steps=steps)
    session = Session(load_model(model, device, dtype, quantize, adapter), text, image, output)
    print(f"{session.janus.name}. Type a question, or /help.")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit leaves)")
            continue
        if line == "/quit":
            return
        try:
            session.handle(line)
        except KeyboardInterrupt:
            print("\n(stopped)")
        except JanusError as error:
            # Said and survived: the conversation and the images waiting for the next question are still there.
            fail(str(error))
        except Exception as error:
            if type(error).__name__ != "OutOfMemoryError":
                raise
            fail(NO_MEMORY)


@dataclass
class Session:
    """A conversation: its turns so far, and the images waiting for the next question."""

    janus: "Janus"
    text: "TextOptions"
    image: "ImageOptions"
    output: Path
    messages: "list[Message]" = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def handle(self, line: str) -> None:
        """Do what a line says: one of the commands, or a question."""
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if not line:
            return
        if not command.startswith("/"):
            self.ask(line)
        elif command == "/image":
            self.attach(rest)
        elif command == "/generate":
            self.generate(rest)
        elif command == "/reset":
            self.messages.clear()
            self.waiting.clear()
            print("(forgotten)")
        elif command == "/save":
            self.save(rest)
        else:
            if command != "/help":
                print(f"there is no {command}; there are:")
            print(HELP)

    def ask(self, question: str) -> None:
        """Answer aloud, and remember both turns. A stopped answer is remembered as far as it came."""
        from openjanus.types import Message

        turn = Message("user", question, tuple(self.waiting))
        pieces: list[str] = []
        stream = self.janus.chat([*self.messages, turn], self.text)
        try:
            for piece in stream:
                pieces.append(piece)
                print(piece, end="", flush=True)
            print()
        finally:
            # An error before the first word leaves the question unasked, with its images still waiting.
            if pieces:
                self.messages += [turn, Message("assistant", "".join(pieces))]
                self.waiting.clear()

    def attach(self, path: str) -> None:
        """Have an image ready for the next question; it is opened now, so that a wrong path is known at once."""
        from openjanus.processing.images import open_image

        path = _expanded(path.strip("\"'"))
        image = open_image(path)
        self.waiting.append(path)
        print(f"({image.width} x {image.height}; goes with your next question)")

    def generate(self, prompt: str) -> None:
        """Paint one image and say where it is."""
        from openjanus.cli.console import progress_bar
        from openjanus.cli.pictures import prepare_output, save_pictures

        prepare_output(self.output)
        with progress_bar("painting") as progress:
            pictures = self.janus.paint(prompt, self.image, progress)
        for path in save_pictures(pictures, self.output, self.janus.name):
            print(path)

    def save(self, name: str) -> None:
        """Write the conversation as Markdown to a file that does not exist yet."""
        if not name:
            raise PromptError("/save needs a file name, as in /save talk.md")
        if not self.messages:
            raise PromptError("there is nothing to save yet; ask something first")
        lines = []
        for message in self.messages:
            lines += [f"**{message.role}**"] + [f"![]({image})" for image in message.images] + [message.text, ""]
        try:
            with Path(_expanded(name)).open("x", encoding="utf-8") as file:
                file.write("\n\n".join(lines))
        except FileExistsError as error:
            raise PromptError(f"{name} exists already; /save writes new files only, choose another name") from error
        except OSError as error:
            raise PromptError(f"cannot write {name}: {error.strerror or error}; choose another place") from error
        print(f"({len(self.messages)} turns saved to {name})")


def _expanded(path: str) -> str:
    """A path with ~ written out, where ~ means somebody."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        return path
