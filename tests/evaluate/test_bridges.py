"""VLMEvalKit on the drop-in: the calls that its adapter makes, and that they come to the answer of our own harness."""

from pathlib import Path

import pytest
import torch

from openjanus.environment import Share
from openjanus.evaluate.benchmark import Question, Settings
from openjanus.evaluate.samples import Samples
from openjanus.evaluate.sampling import sample, speaking
from openjanus.evaluate.understanding.prompts import NO_SYSTEM, ROLES, yes_no
from openjanus.janus import load

from .official import write_picture

TOKENS = 12


@pytest.mark.parametrize("checkpoint", ["janus"], indirect=True)
def test_vlmevalkits_adapter_and_our_harness_come_to_one_answer(checkpoint: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    janus_models, io = pytest.importorskip("janus.models"), pytest.importorskip("janus.utils.io")
    image = write_picture(tmp_path / "a.png")
    processor = janus_models.VLChatProcessor.from_pretrained(str(checkpoint))
    model = transformers.AutoModelForCausalLM.from_pretrained(str(checkpoint), trust_remote_code=True).to(torch.float32).eval()
    # As the adapter does for every set but MM-Vet: no system prompt, the words User and Assistant, image first.
    processor.system_prompt = ""
    content = yes_no("Is it red?")
    conversation = [
        {"role": "User", "content": content, "images": [str(image)]},
        {"role": "Assistant", "content": ""},
    ]
    inputs = processor(conversations=conversation, images=io.load_pil_images(conversation), force_batchify=True)
    inputs = inputs.to(model.device, dtype=torch.float32)
    with torch.inference_mode():
        outputs = model.language_model.generate(
            inputs_embeds=model.prepare_inputs_embeds(**inputs),
            attention_mask=inputs.attention_mask,
            pad_token_id=processor.tokenizer.eos_token_id,
            bos_token_id=processor.tokenizer.bos_token_id,
            eos_token_id=processor.tokenizer.eos_token_id,
            max_new_tokens=TOKENS,
            do_sample=False,
            use_cache=True,
            output_logits=False,
            output_scores=False,
            return_dict_in_generate=False,
        )
    theirs = processor.tokenizer.decode(outputs[0].cpu().tolist(), skip_special_tokens=True)
    from openjanus.evaluate.files.finding import file_image

    case = Question("1", "random", content, (file_image(image),), {}, system_prompt=NO_SYSTEM, max_tokens=TOKENS)
    ours = Samples(tmp_path / "out")
    sample([case], speaking(load(checkpoint, dtype="float32"), ROLES), ours, Settings(), Share())
    assert ours.read()["1", 0].text == theirs.strip() != ""
