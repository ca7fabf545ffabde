"""The commands, run as a person runs them, on small checkpoints of both variants."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openjanus.cli import main
from openjanus.cli.chat import Session
from openjanus.janus import load
from openjanus.types import ImageOptions, TextOptions

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scene(tmp_path: Path) -> str:
    path = tmp_path / "scene.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return str(path)


def run(*arguments: str) -> int:
    return main([str(argument) for argument in arguments])


# -- understand ----------------------------------------------------------------------


def test_understand_streams_the_answer_to_standard_output(checkpoint: Path, scene: str, capsys: Capture):
    command = ["understand", "What is it?", "--image", scene, "--model", str(checkpoint), "--max-tokens", "6"]
    assert run(*command) == 0
    streamed = capsys.readouterr().out
    assert run(*command, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["answer"] == streamed.strip()
    assert result["images"] == [scene]


def test_understand_takes_several_images_and_none(checkpoint: Path, scene: str, capsys: Capture):
    common = ["--model", str(checkpoint), "--max-tokens", "3"]
    assert run("understand", "Which?", "-i", scene, "-i", scene, *common) == 0
    assert run("understand", "<image_placeholder> or <image_placeholder>?", "-i", scene, "-i", scene, *common) == 0
    assert run("understand", "Hello", *common) == 0


def test_understand_reads_the_question_from_standard_input(checkpoint: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin.read", lambda: "Hello", raising=False)
    assert run("understand", "-", "--model", str(checkpoint), "--max-tokens", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["question"] == "Hello"


def test_sampled_answers_repeat_with_their_seed(checkpoint: Path, capsys: Capture):
    command = ["understand", "Hello", "--model", str(checkpoint), "--max-tokens", "12", "--temperature", "2", "--top-p", "0.9"]
    answers = []
    for seed in ("1", "1", "2"):
        assert run(*command, "--seed", seed) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != answers[2]


# -- generate ------------------------------------------------------------------------


def test_generate_writes_pngs_that_remember_how_they_were_painted(checkpoint: Path, tmp_path: Path, capsys: Capture):
    out = tmp_path / "new" / "folder"
    command = ["generate", "a red cube", "a blue ball", "-n", "2", "--seed", "7", "--steps", "2", "--guidance", "3"]
    assert run(*command, "-o", str(out), "--model", str(checkpoint)) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert len(paths) == 4 == len(set(paths))
    with Image.open(paths[3]) as image:
        image.load()
        assert image.text["prompt"] == "a blue ball"
        assert image.text["seed"] == "8"
        settings = json.loads(image.text["settings"])
        assert settings["guidance"] == 3
        again = load(str(checkpoint)).generate(image.text["prompt"], seed=8, guidance=settings["guidance"], steps=2)[0]
        assert np.array_equal(np.asarray(image), np.asarray(again))


def test_generate_never_writes_over_a_file(checkpoint: Path, tmp_path: Path, capsys: Capture):
    target = tmp_path / "cube.png"
    target.write_bytes(b"mine")
    command = ["generate", "a cube", "--steps", "1", "--temperature", "0", "-o", str(target), "--model", str(checkpoint)]
    assert run(*command, "--json") == 0
    assert run(*command, "--json") == 0
    assert target.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.glob("*.png")} == {"cube.png", "cube_1.png", "cube_2.png"}


def test_a_folder_may_have_a_dot_in_its_name(checkpoint: Path, tmp_path: Path, capsys: Capture):
    (tmp_path / "some.png").mkdir()
    for name in ("v1.5", "some.png"):
        assert run("generate", "a cube", "--steps", "1", "-m", str(checkpoint), "-o", str(tmp_path / name)) == 0
        assert len(list((tmp_path / name).glob("*.png"))) == 1


# -- chat ----------------------------------------------------------------------------


def session(checkpoint: Path, folder: Path) -> Session:
    return Session(load(str(checkpoint)), TextOptions(max_tokens=4), ImageOptions(seed=0, steps=1), folder)


def test_chat_keeps_its_turns_and_images_and_forgets_on_reset(checkpoint: Path, tmp_path: Path, scene: str, capsys: Capture):
    talk = session(checkpoint, tmp_path / "out")
    talk.handle(f"/image {scene}")
    assert "30 x 20" in capsys.readouterr().out
    talk.handle("What is it?")
    talk.handle("And why?")
    assert [message.role for message in talk.messages] == ["user", "assistant", "user", "assistant"]
    assert talk.messages[0].images == (scene,)
    assert talk.messages[2].images == ()
    talk.handle("/reset")
    assert not talk.messages


def test_chat_paints_saves_and_helps(checkpoint: Path, tmp_path: Path, capsys: Capture):
    talk = session(checkpoint, tmp_path / "out")
    talk.handle("/generate a red cube")
    assert len(list((tmp_path / "out").glob("*.png"))) == 1
    talk.handle("Hello")
    talk.handle(f"/save {tmp_path / 'talk.md'}")
    assert "Hello" in (tmp_path / "talk.md").read_text()
    capsys.readouterr()
    talk.handle("/nonsense")
    out = capsys.readouterr().out
    assert "no /nonsense" in out
    assert "/generate PROMPT" in out


def test_chat_survives_errors_and_interruptions(
    checkpoint: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
):
    lines = iter(["/image /no/such.png", "/save /no/such/folder/talk.md", "/generate", "hello", KeyboardInterrupt, "/quit"])

    def answer(_: str) -> str:
        line = next(lines)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", answer)
    assert run("chat", "--model", str(checkpoint), "--max-tokens", "2", "-o", str(tmp_path / "out")) == 0
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 3
    assert next(lines, None) is None


def test_an_interrupted_answer_is_remembered_as_far_as_it_came(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    talk = session(checkpoint, tmp_path)

    def interrupted(*_: object):
        yield "so far"
        raise KeyboardInterrupt

    monkeypatch.setattr(talk.janus, "chat", interrupted)
    with pytest.raises(KeyboardInterrupt):
        talk.handle("Hello")
    assert talk.messages[-1].text == "so far"


# -- inspect and convert -------------------------------------------------------------


def test_inspect_tells_what_a_checkpoint_is(checkpoint: Path, capsys: Capture):
    assert run("inspect", str(checkpoint)) == 0
    text = capsys.readouterr().out
    assert "deepseek" in text
    assert "<begin_of_image>" in text
    assert run("inspect", str(checkpoint), "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


# -- mistakes ------------------------------------------------------------------------


def mistake(capsys: Capture, *arguments: str, says: str) -> None:
    """The command ends with 2, one line on stderr that holds every word of `says`, and nothing on stdout."""
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    for word in says.split("|"):
        assert word in lines[0]


def copied(checkpoint: Path, folder: Path) -> Path:
    """A copy that may be damaged."""
    import shutil

    return Path(shutil.copytree(checkpoint, folder / "copy"))


def test_a_missing_weight_file(checkpoint: Path, tmp_path: Path, capsys: Capture):
    folder = copied(checkpoint, tmp_path)
    (folder / "model.safetensors").unlink()
    mistake(capsys, "understand", "Hello", "--model", str(folder), says="holds no weights|model.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 500, -64])
def test_a_truncated_weight_file(checkpoint: Path, tmp_path: Path, capsys: Capture, keep: int):
    file = copied(checkpoint, tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    mistake(capsys, "understand", "Hello", "--model", str(file.parent), says="model.safetensors|fetch it again")


def test_weights_of_another_layout_or_model(tmp_path: Path, checkpoint: Path, capsys: Capture):
    from safetensors.torch import save_file

    folder = copied(checkpoint, tmp_path)
    save_file({"transformer.wte.weight": torch.zeros(3, 3)}, folder / "model.safetensors")
    mistake(capsys, "understand", "Hello", "--model", str(folder), says="do not fit|missing|extra|layout")


def test_a_config_of_an_unknown_model(tmp_path: Path, checkpoint: Path, capsys: Capture):
    folder = copied(checkpoint, tmp_path)
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    mistake(capsys, "understand", "Hello", "--model", str(folder), says="qwen2_vl|multi_modality")
    (folder / "config.json").write_text("{not json")
    mistake(capsys, "understand", "Hello", "--model", str(folder), says="config.json")


def test_a_model_that_is_nowhere(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    mistake(capsys, "understand", "Hello", "--model", str(tmp_path / "absent"), says="absent|Hugging Face id")


def giant_png(path: Path) -> str:
    """The head of a 30,000 x 30,000 picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return str(path)


def test_images_that_are_none(checkpoint: Path, tmp_path: Path, capsys: Capture):
    ask = ("understand", "What is it?", "--model", str(checkpoint), "--image")
    mistake(capsys, *ask, str(tmp_path / "absent.png"), says="absent.png")
    text = tmp_path / "text.png"
    text.write_text("I am text")
    mistake(capsys, *ask, str(text), says="text.png|image")
    mistake(capsys, *ask, giant_png(tmp_path / "giant.png"), says="giant.png|900,000,000|100,000,000")
    mistake(capsys, *ask, "https://example.org/a.png", says="https")


def test_an_image_count_that_does_not_fit_the_prompt(checkpoint: Path, scene: str, capsys: Capture):
    question = "<image_placeholder> and <image_placeholder>?"
    mistake(capsys, "understand", question, "-i", scene, "-m", str(checkpoint), says="2|1 image|one for each image")


def test_a_prompt_longer_than_the_context(checkpoint: Path, tmp_path: Path, capsys: Capture):
    mistake(capsys, "understand", "word " * 400, "-m", str(checkpoint), says="tokens|320")
    mistake(capsys, "generate", "word " * 400, "-m", str(checkpoint), "-o", str(tmp_path), says="tokens|320")


def test_an_output_that_cannot_be_written_is_said_before_painting(checkpoint: Path, tmp_path: Path, capsys: Capture):
    (tmp_path / "file").write_text("a file, no folder")
    paint = ("generate", "a cube", "-m", str(checkpoint), "-o")
    mistake(capsys, *paint, str(tmp_path / "file"), says="cannot write|file|-o")
    mistake(capsys, *paint, str(tmp_path / "file" / "deeper"), says="cannot write|-o")
    mistake(capsys, *paint, str(tmp_path / ("x" * 300 + ".png")), says="cannot write|-o")
    assert (tmp_path / "file").read_text() == "a file, no folder"


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("-n", "0", "n is 0"),
        ("--guidance", "nan", "guidance is nan"),
        ("--guidance", "inf", "guidance is inf"),
        ("--temperature", "-1", "temperature is -1.0|0"),
        ("--top-p", "0", "top_p is 0"),
        ("--steps", "0", "steps is 0"),
        ("--seed", "-3", "seed is -3"),
        ("--dtype", "float13", "float13|float32|bfloat16"),
        ("--device", "tpu", "tpu|auto, cpu, cuda"),
        ("--seed", "abc", "--seed|integer|--help"),
        ("--sedd", "1", "--sedd|--help"),
    ],
)
def test_options_that_make_no_sense(checkpoint: Path, tmp_path: Path, capsys: Capture, flag: str, value: str, says: str):
    out = tmp_path / "out"
    mistake(capsys, "generate", "a cube", "-m", str(checkpoint), "-o", str(out), flag, value, says=says)
    assert not list(out.glob("*")) if out.exists() else True


def test_commands_that_do_not_exist(capsys: Capture):
    mistake(capsys, "undrestand", "Hello", says="undrestand|--help")
    mistake(capsys, "understand", says="question|--help")


def test_the_module_runs_as_the_command_without_a_traceback(tmp_path: Path):
    source = Path(__file__).resolve().parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "openjanus", "understand", "Hi", "--image", "absent.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "absent.png" in done.stderr.splitlines()[-1]


def test_a_device_that_is_not_here(checkpoint: Path, capsys: Capture):
    if not torch.cuda.is_available():
        mistake(capsys, "understand", "Hello", "-m", str(checkpoint), "--device", "cuda", says="cuda|--device auto")
    assert run("understand", "Hello", "-m", str(checkpoint), "--device", "auto", "--max-tokens", "1") == 0
