"""Chat templates: messages -> the text a checkpoint was tuned on (SPEC section 5.1).

Two levels: `render_turns` knows role strings, `ChatFormat` knows messages. Neither knows tokens or images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from openjanus.errors import ConfigError, PromptError
from openjanus.types import Message

Turn = tuple[str, str | None]  # role string, text; without text the turn is open: the model is to write it
Style = Literal["deepseek", "llama-2", "plain", "alignment"]

SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


@dataclass(frozen=True)
class Template:
    """One way of writing a conversation. `sep` follows turns 0, 2, 4 ..., `sep2` turns 1, 3, 5 ..."""

    name: str
    style: Style
    roles: tuple[str, str] = ("", "")
    sep: str = ""
    sep2: str = ""
    system_template: str = ""
    system_message: str = ""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # as published; look eos up by its string instead


_DEEPSEEK_END = "<｜end▁of▁sentence｜>"
_LLAMA_SYSTEM = "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n"
_LLAMA_ROLES = ("[INST]", "[/INST]")
_LLAMA_END = " </s><s>"

TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            name="deepseek",
            style="deepseek",
            roles=("<|User|>", "<|Assistant|>"),
            sep="\n\n",
            sep2=_DEEPSEEK_END,
            system_template="{system_message}",
            stop=("<|User|>", _DEEPSEEK_END),
            stop_token_ids=(100001,),
        ),
        Template(
            name="deepseek_old",
            style="deepseek",
            roles=("User", "Assistant"),
            sep="\n\n",
            sep2=_DEEPSEEK_END,
            system_template="{system_message}",
            stop=("User:", _DEEPSEEK_END),
            stop_token_ids=(100001,),
        ),
        Template("llama-2", "llama-2", _LLAMA_ROLES, " ", _LLAMA_END, _LLAMA_SYSTEM, "", (), (2,)),
        Template("llava_llama2", "llama-2", _LLAMA_ROLES, " ", _LLAMA_END, _LLAMA_SYSTEM, SYSTEM_PROMPT, (), (2,)),
        Template("plain", "plain", stop=("</s>",), stop_token_ids=(2,)),
        Template("alignment", "alignment", stop=("</s>",), stop_token_ids=(2,)),
    )
}


def find_template(name: str) -> Template:
    """The template of that name; ConfigError, with the names there are, if there is none."""
    if name not in TEMPLATES:
        raise ConfigError(f"there is no chat template {name!r}; choose one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def join_turns(template: Template, turns: Sequence[Turn], system: str = "") -> str:
    """The conversation as the template writes it, texts as they are (the published `get_prompt`)."""
    opening = template.system_template.format(system_message=system) if system else ""
    separators = (template.sep, template.sep2)
    if template.style == "deepseek":
        return (opening and opening + template.sep) + "".join(
            f"{role}: {text}{separators[index % 2]}" if text else f"{role}:" for index, (role, text) in enumerate(turns)
        )
    if template.style == "llama-2":
        # The opening holds the first turn's role, with or without a system text.
        written = [
            f"{role} {text}{separators[index % 2]}" if text and index else f"{text}{template.sep}" if text else role
            for index, (role, text) in enumerate(turns)
        ]
        return (opening or f"{template.roles[0]} ") + "".join(written)
    if template.style == "alignment":
        # Captions: what is asked is always the image, whatever the text.
        turns = [(role, "<image>\n" if text and index % 2 == 0 else text) for index, (role, text) in enumerate(turns)]
    return "".join(f"{text}{separators[index % 2]}" for index, (_, text) in enumerate(turns) if text)


def render_turns(template: Template, turns: Sequence[Turn], system: str = "") -> str:
    """The prompt of a conversation: texts and result stripped (the published `apply_sft_template_for_multi_turn_prompts`)."""
    return join_turns(template, [(role, text and text.strip()) for role, text in turns], system).strip()


@dataclass(frozen=True)
class ChatFormat:
    """How one checkpoint wants messages written.

    roles: strings for user and assistant, None for the template's own. Janus-Pro writes <|User|> and <|Assistant|>,
    Janus-1.3B and JanusFlow "User" and "Assistant", all with the "deepseek" template. ConfigError for an unknown name.
    """

    name: str = "deepseek"
    roles: tuple[str, str] | None = None
    system_prompt: str = SYSTEM_PROMPT

    def __post_init__(self) -> None:
        find_template(self.name)

    @property
    def template(self) -> Template:
        """The table's entry."""
        return TEMPLATES[self.name]

    def render(self, messages: Sequence[Message], system_prompt: str | None = None, add_reply: bool = False) -> str:
        """The prompt of the messages. An empty assistant message last is the turn to write; `add_reply` adds it if need be.

        A system message that comes first replaces the system prompt (None: this format's own, "": none) and is not counted as a
        turn. Separators go by a turn's place, not its role, as in the published code. PromptError for a system message further on
        or a role that is none.
        """
        system = self.system_prompt if system_prompt is None else system_prompt
        if messages and messages[0].role == "system":
            system, messages = messages[0].text.strip(), messages[1:]
        user, assistant = self.roles or self.template.roles
        names = {"user": user, "assistant": assistant}
        for message in messages:
            if message.role == "system":
                raise PromptError("a system message stands after another message; only the first message may be one")
            if message.role not in names:
                raise PromptError(f"a message has the role {message.role!r}; it must be system, user or assistant")
        turns: list[Turn] = [(names[message.role], message.text) for message in messages]
        if add_reply and not (messages and messages[-1].role == "assistant" and not messages[-1].text.strip()):
            turns.append((assistant, ""))
        return render_turns(self.template, turns, system)
