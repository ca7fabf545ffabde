"""Parameters of OpenAI's API that mean nothing here: taken where they ask for nothing, refused by name where they do."""

from collections.abc import Mapping
from typing import Any

from openjanus.serve.refusals import Refusal

# They change no answer: taken, whatever they say.
SILENT = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")

CHAT: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), "these models cannot call tools"),
    "tool_choice": (("none", "auto"), "these models cannot call tools"),
    "functions": (([],), "these models cannot call functions"),
    "function_call": (("none", "auto"), "these models cannot call functions"),
    "response_format": (({"type": "text"},), "answers are text; these models cannot be held to a format"),
    "modalities": ((["text"],), "an answer is text; pictures are painted by /v1/images/generations"),
    "audio": ((), "these models cannot speak"),
    "logprobs": ((False,), "probabilities are not told"),
    "top_logprobs": ((0,), "probabilities are not told"),
    "logit_bias": (({},), "words can be neither favoured nor banned"),
    "frequency_penalty": ((0,), "repetition is not penalised"),
    "presence_penalty": ((0,), "repetition is not penalised"),
    "reasoning_effort": (("none",), "these models do not think aloud"),
    "verbosity": (("medium",), "these models have one way of answering; say it in the question"),
    "prediction": ((), "predicted output is not used"),
    "web_search_options": ((), "these models cannot search"),
}
IMAGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "quality": (("auto", "standard"), "there is one quality"),
    "style": ((), "style goes into the prompt"),
    "background": (("auto", "opaque"), "pictures have no transparency"),
    "moderation": (("auto", "low"), "nothing is moderated"),
    "image": ((), "these models cannot edit pictures"),
    "mask": ((), "these models cannot edit pictures"),
    "negative_prompt": (("",), "these models know no negative prompt"),
}


def check_extras(extras: Mapping[str, Any] | None, neutral: Mapping[str, tuple[tuple[Any, ...], str]], known: list[str]) -> None:
    """Refusal 400 for the first parameter that cannot be had, or that nobody knows."""
    for name, value in (extras or {}).items():
        if name in SILENT:
            continue
        if name not in neutral:
            message = f"unknown parameter {name[:100]!r}; there are {', '.join(known)}"
            raise Refusal(400, message, "unknown_parameter", name[:100])
        allowed, why = neutral[name]
        # 0 is no False here.
        if value is not None and not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            raise Refusal(400, f"{name} is not supported: {why}; leave it out", "unsupported_parameter", name)
