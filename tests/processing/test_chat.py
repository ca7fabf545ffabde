"""Messages become the text a checkpoint was tuned on."""

import pytest

from openjanus.errors import ConfigError, PromptError
from openjanus.processing.chat import SYSTEM_PROMPT, TEMPLATES, ChatFormat, join_turns, render_turns
from openjanus.types import Message

END = "<｜end▁of▁sentence｜>"


def test_families_differ_in_their_role_strings_only() -> None:
    messages = [Message("user", " hello "), Message("assistant", "hi"), Message("user", "bye")]
    pro, janus = ChatFormat(), ChatFormat(roles=("User", "Assistant"))
    assert pro.render(messages, "", add_reply=True) == f"<|User|>: hello\n\n<|Assistant|>: hi{END}<|User|>: bye\n\n<|Assistant|>:"
    assert janus.render(messages, "", add_reply=True) == f"User: hello\n\nAssistant: hi{END}User: bye\n\nAssistant:"
    assert ChatFormat("deepseek_old").render(messages, "") == janus.render(messages, "")


def test_the_system_prompt_is_the_formats_own_unless_given() -> None:
    messages = [Message("user", "x")]
    assert ChatFormat().render(messages) == f"{SYSTEM_PROMPT}\n\n<|User|>: x"
    assert ChatFormat(system_prompt="Obey.").render(messages) == "Obey.\n\n<|User|>: x"
    assert ChatFormat().render(messages, "Be brief.") == "Be brief.\n\n<|User|>: x"
    assert ChatFormat().render(messages, "") == "<|User|>: x"


def test_a_leading_system_message_replaces_the_system_prompt_and_is_no_turn() -> None:
    messages = [Message("user", "x"), Message("assistant", "y")]
    chat = ChatFormat()
    assert chat.render([Message("system", " Be brief. "), *messages]) == chat.render(messages, "Be brief.")
    assert chat.render([Message("system", ""), *messages]) == chat.render(messages, "")


def test_a_later_system_message_and_an_unknown_role_are_refused() -> None:
    with pytest.raises(PromptError, match="first message"):
        ChatFormat().render([Message("user", "x"), Message("system", "y")])
    with pytest.raises(PromptError, match="'tool'"):
        ChatFormat().render([Message("tool", "x")])  # type: ignore[arg-type]


def test_an_open_reply_is_not_opened_twice() -> None:
    asked = [Message("user", "x")]
    opened = ChatFormat().render([*asked, Message("assistant", "")], "")
    assert opened == "<|User|>: x\n\n<|Assistant|>:"
    assert ChatFormat().render([*asked, Message("assistant", "  ")], "", add_reply=True) == opened
    assert ChatFormat().render(asked, "", add_reply=True) == opened
    answered = ChatFormat().render([*asked, Message("assistant", "y")], "", add_reply=True)
    assert answered == f"<|User|>: x\n\n<|Assistant|>: y{END}<|Assistant|>:"


def test_separators_go_by_place_not_by_role() -> None:
    assert ChatFormat().render([Message("user", "x"), Message("user", "y")], "") == f"<|User|>: x\n\n<|User|>: y{END}"


def test_llama_templates_open_their_first_turn_with_or_without_a_system_text() -> None:
    turns = [("[INST]", "one"), ("[/INST]", "two"), ("[INST]", "three"), ("[/INST]", None)]
    for name in ("llama-2", "llava_llama2"):
        assert render_turns(TEMPLATES[name], turns) == "[INST] one [/INST] two </s><s>[INST] three [/INST]"
        assert render_turns(TEMPLATES[name], turns[:1], "sys {x}") == "[INST] <<SYS>>\nsys {x}\n<</SYS>>\n\none"


def test_plain_and_caption_templates_have_no_roles() -> None:
    messages = [Message("user", "one"), Message("assistant", "two")]
    assert ChatFormat("plain").render(messages) == "onetwo"
    assert ChatFormat("alignment").render(messages) == "<image>\ntwo"


def test_joined_turns_are_not_stripped_and_rendered_ones_are() -> None:
    turns = [("A", " x "), ("B", None)]
    assert join_turns(TEMPLATES["deepseek"], turns) == "A:  x \n\nB:"
    assert render_turns(TEMPLATES["deepseek"], turns) == "A: x\n\nB:"
    assert join_turns(TEMPLATES["deepseek"], []) == ""


def test_an_unknown_template_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'vicuna'.*deepseek_old"):
        ChatFormat("vicuna")
