"""Conversation templates under their published names (SPEC section 5.1); the text is written by openjanus' chat templates."""

from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Any

from openjanus.processing.chat import TEMPLATES, Style, Template, join_turns


class SeparatorStyle(IntEnum):
    """How a template sets its separators. The published list; DeepSeek, LLAMA2, PLAIN and ALIGNMENT can be written."""

    ADD_COLON_SINGLE = auto()
    ADD_COLON_TWO = auto()
    ADD_COLON_SPACE_SINGLE = auto()
    NO_COLON_SINGLE = auto()
    NO_COLON_TWO = auto()
    ADD_NEW_LINE_SINGLE = auto()
    LLAMA2 = auto()
    CHATGLM = auto()
    CHATML = auto()
    CHATINTERN = auto()
    DOLLY = auto()
    RWKV = auto()
    PHOENIX = auto()
    ROBIN = auto()
    DeepSeek = auto()
    PLAIN = auto()
    ALIGNMENT = auto()


_STYLES: dict[SeparatorStyle, Style] = {
    SeparatorStyle.DeepSeek: "deepseek",
    SeparatorStyle.LLAMA2: "llama-2",
    SeparatorStyle.PLAIN: "plain",
    SeparatorStyle.ALIGNMENT: "alignment",
}


@dataclass
class Conversation:
    """A template and the messages written into it so far: [role, text] each, text None where the model is to write."""

    name: str
    system_template: str = "{system_message}"
    system_message: str = ""
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    messages: list[list[str | None]] = field(default_factory=list)
    offset: int = 0
    sep_style: SeparatorStyle = SeparatorStyle.ADD_COLON_SINGLE
    sep: str = "\n"
    sep2: str | None = None
    stop_str: str | list[str] | None = None
    stop_token_ids: list[int] | None = None

    def _style(self) -> Style:
        if self.sep_style not in _STYLES:
            known = ", ".join(style.name for style in _STYLES)
            raise ValueError(f"Invalid style: {self.sep_style!r}; conversations of {known} can be written")
        return _STYLES[self.sep_style]

    def get_prompt(self) -> str:
        """The conversation as text. ValueError for a separator style that no Janus uses."""
        style = self._style()
        template = Template(self.name, style, self.roles, self.sep, self.sep2 or "", self.system_template)
        return join_turns(template, [(role or "", text) for role, text in self.messages], self.system_message)

    def get_prompt_for_current_round(self, content: str | None = None) -> str:
        """One question alone, as training writes it: the user's role, `content`, and the assistant's role."""
        style = self._style()
        if style == "plain":
            return "<image>\n"
        if style != "deepseek":
            raise ValueError(f"Unsupported sep_style in get_prompt_for_current_round: {self.sep_style!r}")
        return f"{self.roles[0]}: {(content or '').strip()}{self.sep}{self.roles[1]}:"

    def set_system_message(self, system_message: str) -> None:
        """Replace the system message."""
        self.system_message = system_message

    def append_message(self, role: str, message: str | None) -> None:
        """Add a message at the end."""
        self.messages.append([role, message])

    def reset_message(self) -> None:
        """Forget all messages."""
        self.messages = []

    def update_last_message(self, message: str | None) -> None:
        """Set the text of the last message, usually the answer that was left open."""
        self.messages[-1][1] = message

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """Pairs [question, answer] of the messages from `offset` on; an answer that is still open is None."""
        texts = [text for _, text in self.messages[self.offset :]]
        return [[question, answer] for question, answer in zip(texts[::2], [*texts[1::2], None], strict=False)]

    def to_openai_api_messages(self) -> list[dict[str, str | None]]:
        """Messages as OpenAI's API takes them, the system message first; an answer that is still open is left out."""
        written: list[dict[str, str | None]] = [{"role": "system", "content": self.system_message}]
        for index, (_, text) in enumerate(self.messages[self.offset :]):
            if text is not None or index % 2 == 0:
                written.append({"role": "assistant" if index % 2 else "user", "content": text})
        return written

    def copy(self) -> "Conversation":
        """A conversation whose messages can be changed without changing this one's."""
        return Conversation(
            name=self.name,
            system_template=self.system_template,
            system_message=self.system_message,
            roles=self.roles,
            messages=[[role, text] for role, text in self.messages],
            offset=self.offset,
            sep_style=self.sep_style,
            sep=self.sep,
            sep2=self.sep2,
            stop_str=self.stop_str,
            stop_token_ids=self.stop_token_ids,
        )

    def dict(self) -> dict[str, Any]:
        """What is needed to show the conversation again."""
        return {
            "template_name": self.name,
            "system_message": self.system_message,
            "roles": self.roles,
            "messages": self.messages,
            "offset": self.offset,
        }


def _conversation(template: Template) -> Conversation:
    return Conversation(
        name=template.name,
        system_template=template.system_template,
        system_message=template.system_message,
        roles=template.roles,
        sep_style=next(style for style, name in _STYLES.items() if name == template.style),
        sep=template.sep,
        sep2=template.sep2,
        stop_str=list(template.stop) or None,
        stop_token_ids=list(template.stop_token_ids),
    )


# Published, and open to `register_conv_template`.
conv_templates: dict[str, Conversation] = {name: _conversation(template) for name, template in TEMPLATES.items()}


def register_conv_template(template: Conversation, override: bool = False) -> None:
    """Add a template under its name; AssertionError if there is one of that name and `override` is false."""
    if not override and template.name in conv_templates:
        raise AssertionError(f"{template.name} has been registered; pass override=True to replace it")
    conv_templates[template.name] = template


def get_conv_template(name: str) -> Conversation:
    """A copy of the template of that name; KeyError if there is none."""
    return conv_templates[name].copy()
