"""Layouts: which stored tensors make up each tensor of a model. One table a layout, read both ways.

A table maps our parameter names to `Stored`: the names in the file, their shapes, and how they become ours. What a layout has no
place for is None in its table: the named, permitted differences (`attn_pool` and `codebook_used` in the transformers layout).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn

from openjanus.config import FlowGenerationConfig, GenerationConfig

VAE_PREFIX = "generation.vae."


class Form(Enum):
    """How stored tensors become ours."""

    SAME = "as it is"
    JOINED = "three, joined along their first dimension"
    FLAT = "without the leading dimension of 1"
    TRANSPOSED = "transposed"
    CONVOLUTION = "as a 1x1 convolution"


@dataclass(frozen=True)
class Slot:
    """A tensor that a model needs: its shape, and whether it is the weight of a Linear."""

    shape: tuple[int, ...]
    linear: bool = False


@dataclass(frozen=True)
class Stored:
    """Where one of our tensors lies in a file: names, the shape each has there, and the form."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    form: Form = Form.SAME

    def gather(self, read: Callable[[str], Tensor]) -> Tensor:
        """Our tensor from the stored ones; a view of what `read` gives where the form allows it."""
        tensors = [read(name) for name in self.names]
        match self.form:
            case Form.SAME:
                return tensors[0]
            case Form.JOINED:
                return torch.cat(tensors)
            case Form.FLAT:
                return tensors[0][None]
            case Form.TRANSPOSED:
                return tensors[0].t().contiguous()
            case Form.CONVOLUTION:
                return tensors[0][:, :, 0, 0]

    def scatter(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The stored tensors, in the order of `names`, from ours."""
        match self.form:
            case Form.SAME:
                return (tensor,)
            case Form.JOINED:
                return tensor.chunk(len(self.names))
            case Form.FLAT:
                return (tensor[0],)
            case Form.TRANSPOSED:
                return (tensor.t(),)
            case Form.CONVOLUTION:
                return (tensor[:, :, None, None],)


Table = dict[str, Stored | None]


@dataclass(frozen=True)
class Layout:
    """A way of storing a model. `place` gives names and form for one of our tensors, None if the layout has no place for it."""

    name: str
    place: Callable[[str, Slot], tuple[tuple[str, ...], Form] | None]

    def table(self, slots: Mapping[str, Slot]) -> Table:
        """The layout's table for a model."""
        return {name: self._stored(name, slot) for name, slot in slots.items()}

    def _stored(self, name: str, slot: Slot) -> Stored | None:
        placed = self.place(name, slot)
        if placed is None:
            return None
        names, form = placed
        shape = slot.shape
        match form:
            case Form.JOINED:
                shape = (shape[0] // len(names), *shape[1:])
            case Form.FLAT:
                shape = shape[1:]
            case Form.TRANSPOSED:
                shape = shape[::-1]
            case Form.CONVOLUTION:
                shape = (*shape, 1, 1)
        return Stored(names, shape, form)


def slots(model: nn.Module) -> dict[str, Slot]:
    """The tensors of a model by name, which may live on the meta device."""
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: Slot(tuple(tensor.shape), name in linear) for name, tensor in model.state_dict().items()}


# -- the published layout ------------------------------------------------------------

# Our prefix -> the published one. Below a prefix the names are equal.
JANUS_PREFIXES = {
    "understanding.encoder.": "vision_model.",
    "understanding.adaptor.": "aligner.",
    "generation.tokenizer.": "gen_vision_model.",
    "generation.adaptor.": "gen_aligner.",
    "generation.head.": "gen_head.",
    "generation.embed.": "gen_embed.",
    "language.": "language_model.",
}
FLOW_PREFIXES = {
    "understanding.encoder.": "vision_und_enc_model.",
    "understanding.adaptor.": "vision_und_enc_aligner.",
    "understanding.begin": "beg_of_und_embed",
    "generation.encoder.": "vision_gen_enc_model.",
    "generation.encoder_adaptor.": "vision_gen_enc_aligner.",
    "generation.decoder.": "vision_gen_dec_model.",
    "generation.decoder_adaptor.": "vision_gen_dec_aligner.",
    "generation.decoder_norm.": "vision_gen_dec_aligner_norm.",
    "language.": "language_model.",
}


def _published(prefixes: Mapping[str, str]) -> Callable[[str, Slot], tuple[tuple[str, ...], Form]]:
    def place(name: str, slot: Slot) -> tuple[tuple[str, ...], Form]:
        for ours, published in prefixes.items():
            if name.startswith(ours):
                return (published + name.removeprefix(ours),), Form.SAME
        raise AssertionError(f"the published layout has no prefix for {name}")

    return place


def published_name(name: str) -> str:
    """What the published Janus layout calls one of our tensors."""
    (published,), _ = _published(JANUS_PREFIXES)(name, Slot(()))
    return published


def without_vae(wanted: Mapping[str, Slot]) -> dict[str, Slot]:
    """The tensors that the main weight files hold."""
    return {name: slot for name, slot in wanted.items() if not name.startswith(VAE_PREFIX)}


def only_vae(wanted: Mapping[str, Slot]) -> dict[str, Slot]:
    """The tensors that the files of a JanusFlow's VAE hold."""
    return {name: slot for name, slot in wanted.items() if name.startswith(VAE_PREFIX)}


# -- PaddleMIX's ---------------------------------------------------------------------


def _paddlemix(prefixes: Mapping[str, str], llama: str) -> Callable[[str, Slot], tuple[tuple[str, ...], Form]]:
    """Published names, Linear weights transposed; `llama` is what the decoder is called inside the language model."""
    published = _published(prefixes)

    def place(name: str, slot: Slot) -> tuple[tuple[str, ...], Form]:
        (stored,), _ = published(name, slot)
        stored = re.sub(r"^language_model\.model\.", f"language_model.{llama}.", stored)
        return (stored,), Form.TRANSPOSED if slot.linear else Form.SAME

    return place


# -- transformers' -------------------------------------------------------------------


def _hidden(prefix: str) -> Callable[[re.Match[str]], str]:
    """layers.2k of an adaptor is hidden_layers.(k - 1): transformers counts linear layers, the published code GELUs too."""
    return lambda match: f"{prefix}.hidden_layers.{int(match[1]) // 2 - 1}.{match[2]}"


_TOWER = r"vision_model\.vision_tower\."
_LAYER = r"model.vision_model.encoder.layers.\1."
_VQ_BLOCKS = r"gen_vision_model\.(encoder|decoder)\."

# Published name -> transformers' name and form; the first pattern that matches the whole name counts. None: no place.
_TRANSFORMERS_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str] | None, Form], ...] = (
    (_TOWER + r"attn_pool\..*", None, Form.SAME),
    (_TOWER + r"patch_embed\.proj\.(.*)", r"model.vision_model.embeddings.patch_embedding.\1", Form.SAME),
    (_TOWER + r"pos_embed", r"model.vision_model.embeddings.position_embedding.weight", Form.FLAT),
    (_TOWER + r"blocks\.(\d+)\.norm([12])\.(.*)", _LAYER + r"layer_norm\2.\3", Form.SAME),
    (_TOWER + r"blocks\.(\d+)\.attn\.qkv\.(.*)", _LAYER + r"self_attn.{qkv}_proj.\2", Form.JOINED),
    (_TOWER + r"blocks\.(\d+)\.attn\.proj\.(.*)", _LAYER + r"self_attn.projection_layer.\2", Form.SAME),
    (_TOWER + r"blocks\.(\d+)\.mlp\.(.*)", _LAYER + r"mlp.\2", Form.SAME),
    (_TOWER + r"norm\.(.*)", r"model.vision_model.post_layernorm.\1", Form.SAME),
    (r"aligner\.layers\.0\.(.*)", r"model.aligner.fc1.\1", Form.SAME),
    (r"aligner\.layers\.(\d+)\.(.*)", _hidden("model.aligner"), Form.SAME),
    (r"gen_aligner\.layers\.0\.(.*)", r"model.generation_aligner.fc1.\1", Form.SAME),
    (r"gen_aligner\.layers\.(\d+)\.(.*)", _hidden("model.generation_aligner"), Form.SAME),
    (r"gen_embed\.weight", r"model.generation_embeddings.weight", Form.SAME),
    (r"gen_head\.output_mlp_projector\.(.*)", r"model.generation_head.proj_out.\1", Form.SAME),
    (r"gen_head\.vision_head\.(.*)", r"model.generation_head.vision_head.\1", Form.SAME),
    (r"gen_vision_model\.quantize\.codebook_used", None, Form.SAME),
    (_VQ_BLOCKS + r"mid\.0\.(.*)", r"model.vqmodel.\1.mid.block_1.\2", Form.SAME),
    (_VQ_BLOCKS + r"mid\.1\.(.*)", r"model.vqmodel.\1.mid.attn_1.\2", Form.SAME),
    (_VQ_BLOCKS + r"mid\.2\.(.*)", r"model.vqmodel.\1.mid.block_2.\2", Form.SAME),
    (r"gen_vision_model\.encoder\.conv_blocks\.(\d+)\.res\.(.*)", r"model.vqmodel.encoder.down.\1.block.\2", Form.SAME),
    (r"gen_vision_model\.encoder\.conv_blocks\.(.*)", r"model.vqmodel.encoder.down.\1", Form.SAME),
    (r"gen_vision_model\.decoder\.conv_blocks\.(\d+)\.res\.(.*)", r"model.vqmodel.decoder.up.\1.block.\2", Form.SAME),
    (r"gen_vision_model\.decoder\.conv_blocks\.(.*)", r"model.vqmodel.decoder.up.\1", Form.SAME),
    (r"gen_vision_model\.(.*)", r"model.vqmodel.\1", Form.SAME),
    (r"language_model\.model\.(.*)", r"model.language_model.\1", Form.SAME),
    (r"language_model\.lm_head\.(.*)", r"lm_head.\1", Form.SAME),
)


def _transformers(name: str, slot: Slot) -> tuple[tuple[str, ...], Form] | None:
    published = published_name(name)
    for pattern, target, form in _TRANSFORMERS_RULES:
        match = re.fullmatch(pattern, published)
        if match and target is None:
            return None
        if match and target is not None:
            stored = target(match) if callable(target) else match.expand(target)
            return (tuple(stored.replace("{qkv}", part) for part in "qkv") if form is Form.JOINED else (stored,)), form
    # An adaptor of a type transformers does not know; check_representable names it before any file is touched.
    return None


# -- diffusers', for the VAE ---------------------------------------------------------

_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def _diffusers(old: bool, convolution: bool) -> Callable[[str, Slot], tuple[tuple[str, ...], Form]]:
    def place(name: str, slot: Slot) -> tuple[tuple[str, ...], Form]:
        stored = name.removeprefix(VAE_PREFIX)
        if old and ".attentions." in stored:
            for new, former in _OLD_ATTENTION.items():
                stored = stored.replace(f".{new}.", f".{former}.")
        return (stored,), Form.CONVOLUTION if convolution and slot.linear else Form.SAME

    return place


# -- what other projects call the parts ----------------------------------------------


def _siglip(prefix: str) -> Callable[[str, Slot], tuple[tuple[str, ...], Form] | None]:
    """transformers' SigLIP: as its Janus names the tower, but for the attention's output. No place for the pooling head, which it
    keeps in another form and no Janus reads."""

    def place(name: str, slot: Slot) -> tuple[tuple[str, ...], Form] | None:
        placed = _transformers(name, slot)
        if placed is None:
            return None
        names = (one.removeprefix("model.vision_model.").replace(".projection_layer.", ".out_proj.") for one in placed[0])
        return tuple(prefix + one for one in names), placed[1]

    return place


def _llama(tied: bool) -> Callable[[str, Slot], tuple[tuple[str, ...], Form]]:
    """transformers' Llama; tied: the text head is the table of embeddings, stored once."""

    def place(name: str, slot: Slot) -> tuple[tuple[str, ...], Form]:
        stored = name.removeprefix("language.")
        return ("model.embed_tokens.weight" if tied and stored == "lm_head.weight" else stored,), Form.SAME

    return place


def _llamagen(name: str, slot: Slot) -> tuple[tuple[str, ...], Form]:
    """LlamaGen's image tokenizer, whose names Janus has kept."""
    return (name.removeprefix("generation.tokenizer."),), Form.SAME


DEEPSEEK = Layout("deepseek", _published(JANUS_PREFIXES))
DEEPSEEK_FLOW = Layout("deepseek", _published(FLOW_PREFIXES))
TRANSFORMERS = Layout("transformers", _transformers)
PADDLEMIX = tuple(Layout("paddlemix", _paddlemix(JANUS_PREFIXES, llama)) for llama in ("model", "llama"))
PADDLEMIX_FLOW = tuple(Layout("paddlemix", _paddlemix(FLOW_PREFIXES, llama)) for llama in ("model", "llama"))

# What each kind of model may be stored in; the first is what we write.
JANUS_LAYOUTS = (DEEPSEEK, TRANSFORMERS, *PADDLEMIX)
FLOW_LAYOUTS = (DEEPSEEK_FLOW, *PADDLEMIX_FLOW)
# Diffusers before 0.15 named the attention's weights otherwise, and some files hold them as 1x1 convolutions.
VAE_LAYOUTS = (
    Layout("diffusers", _diffusers(old=False, convolution=False)),
    Layout("diffusers (old names)", _diffusers(old=True, convolution=False)),
    Layout("diffusers (old names, convolutions)", _diffusers(old=True, convolution=True)),
)
# What a part may be stored in; the first is what we write.
TOWER_LAYOUTS = (DEEPSEEK, Layout("siglip", _siglip("vision_model.")), Layout("siglip (tower alone)", _siglip("")))
LANGUAGE_LAYOUTS = (DEEPSEEK, Layout("llama", _llama(tied=False)))
TIED_LANGUAGE_LAYOUTS = (*LANGUAGE_LAYOUTS, Layout("llama (tied)", _llama(tied=True)))
TOKENIZER_LAYOUTS = (DEEPSEEK, Layout("llamagen", _llamagen))


def layouts_of(generation: GenerationConfig) -> tuple[Layout, ...]:
    """The layouts a model may be stored in, without its VAE."""
    return FLOW_LAYOUTS if isinstance(generation, FlowGenerationConfig) else JANUS_LAYOUTS


# -- fitting a file to a layout ------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """How well the tensors of a file fit a layout's table. Names are those of the file."""

    layout: Layout
    table: Table
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    misshapen: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]  # name, the shape it has, the shape it should have

    @property
    def problems(self) -> int:
        """Tensors that do not fit."""
        return len(self.missing) + len(self.extra) + len(self.misshapen)

    def describe(self) -> str:
        """The problems in one line: counts and the first few names of each kind."""
        wrong = [f"{name} {list(came)} instead of {list(wanted)}" for name, came, wanted in self.misshapen]
        kinds = (("missing", self.missing), ("extra", self.extra), ("misshapen", wrong))
        return "; ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names)


def _first(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def fit(layout: Layout, slots: Mapping[str, Slot], shapes: Mapping[str, tuple[int, ...]]) -> Fit:
    """How the tensors of a file, given by their shapes, fit one layout."""
    table = layout.table(slots)
    wanted = {name: stored.shape for stored in table.values() if stored for name in stored.names}
    return Fit(
        layout,
        table,
        missing=tuple(name for name in wanted if name not in shapes),
        extra=tuple(name for name in shapes if name not in wanted),
        misshapen=tuple((name, shapes[name], shape) for name, shape in wanted.items() if shapes.get(name, shape) != shape),
    )


def nearest(layouts: Sequence[Layout], slots: Mapping[str, Slot], shapes: Mapping[str, tuple[int, ...]]) -> Fit:
    """The fit of the layout with the fewest problems; of equals, the first."""
    return min((fit(layout, slots, shapes) for layout in layouts), key=lambda candidate: candidate.problems)


# Prefixes that only one kind of checkpoint has.
_MARKS = {
    "gen_vision_model.": "a published Janus or Janus-Pro",
    "vision_gen_enc_model.": "a published JanusFlow",
    "model.vqmodel.": "transformers' Janus",
    "language_model.llama.": "a PaddleMIX checkpoint",
    "model.layers.": "a bare language model",
    "decoder.up_blocks.": "a VAE",
    "quantize.embedding.": "LlamaGen's image tokenizer",
    "vision_model.encoder.": "a SigLIP or a CLIP",
}


def looks_like(names: Iterable[str]) -> str:
    """What kind of checkpoint has such tensor names, in words; empty if unknown."""
    found = {mark for name in names for mark in _MARKS if name.startswith(mark)}
    return next((what for mark, what in _MARKS.items() if mark in found), "")
