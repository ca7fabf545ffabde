"""A tokenizer and processors small enough to read, of both families."""

from collections.abc import Callable
from pathlib import Path

import pytest

from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import FLOW_TAGS, Tokenizer

TOKENIZER = Path(__file__).resolve().parents[1] / "data" / "tokenizer"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-level BPE of 340 tokens with the published special tokens at 340 to 347."""
    return Tokenizer.from_folder(TOKENIZER)


@pytest.fixture(scope="session", params=["janus", "flow"])
def make_processor(request: pytest.FixtureRequest) -> Callable[..., Processor]:
    """Builds a processor whose images fill 3 placeholders (and, for flow, <begin_of_image>); runs a test for both families."""
    flow = request.param == "flow"

    def make(**options: object) -> Processor:
        return Processor(
            Tokenizer.from_folder(TOKENIZER, extra_tags=FLOW_TAGS if flow else (), pad_fallback=flow),
            ImageProcessor(ImageProcessorConfig(8)),
            ChatFormat(roles=("User", "Assistant") if flow else None),
            slots_per_image=3 + int(flow),
            begin_is_slot=flow,
            **options,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def processor(make_processor: Callable[..., Processor]) -> Processor:
    return make_processor()
