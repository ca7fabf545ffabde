"""What the weights are: one frozen dataclass a part, and the published models as presets.

Defaults are those that complete a partial published `config.json` (reference/SPEC.md sections 1 to 6): a missing key means
what the published code would have assumed. The JSON itself is read and written in `checkpoints/schema.py`.
"""

from dataclasses import dataclass, field, replace
from math import isqrt

from openjanus.errors import ConfigError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True)
class LanguageConfig:
    """A Llama decoder. Defaults are LlamaConfig's, which complete a partial published `language_config`."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # None: as many as attention heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    def __post_init__(self) -> None:
        if self.num_key_value_heads is None:
            object.__setattr__(self, "num_key_value_heads", self.num_attention_heads)
        if self.head_dim is None:
            _require(
                self.hidden_size % self.num_attention_heads == 0,
                f"language_config: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}; give head_dim explicitly",
            )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        _require(
            self.num_attention_heads % self.kv_heads == 0,
            f"language_config: num_attention_heads {self.num_attention_heads} is not a multiple of "
            f"num_key_value_heads {self.kv_heads}",
        )
        _require(self.head_size % 2 == 0, f"language_config: head_dim {self.head_size} is odd; rotary positions need an even one")

    @property
    def kv_heads(self) -> int:
        """Key/value heads; fewer than attention heads means grouped-query attention."""
        assert self.num_key_value_heads is not None
        return self.num_key_value_heads

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        assert self.head_dim is not None
        return self.head_dim


TOWER_ACTIVATIONS = ("gelu", "gelu_pytorch_tanh")  # as transformers calls them


@dataclass(frozen=True)
class TowerConfig:
    """A SigLIP vision transformer (SPEC section 1). `layers` counts the full stack, before `select_layer` cuts it."""

    image_size: int = 336
    patch_size: int = 16
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    select_layer: int = -2
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    ignore_head: bool = True
    model_name: str = "siglip_large_patch16_384"
    activation: str = "gelu"  # the published towers run the exact one, SigLIP itself was trained with "gelu_pytorch_tanh"

    def __post_init__(self) -> None:
        _require(
            self.activation in TOWER_ACTIVATIONS,
            f"vision tower: activation is {self.activation!r}; it must be {' or '.join(TOWER_ACTIVATIONS)}",
        )
        _require(self.width % self.heads == 0, f"vision tower: width {self.width} is not a multiple of heads {self.heads}")
        _require(self.grid >= 1, f"vision tower: image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        _require(self.depth >= 0, f"vision tower: select_layer {self.select_layer} leaves no layer of {self.layers}")

    @property
    def depth(self) -> int:
        """Blocks that are built and run: -1 and 0 keep all, -2 drops the last, n > 0 keeps the first n."""
        if self.select_layer > 0:
            return min(self.layers, self.select_layer)
        return min(self.layers, self.layers + self.select_layer + 1)

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches, and so embeddings, of one image."""
        return self.grid**2


@dataclass(frozen=True)
class ProjectorConfig:
    """An adaptor between two widths (SPEC section 2): identity, linear, mlp_gelu or low_high_hybrid_split_mlp_gelu."""

    input_dim: int
    n_embed: int
    projector_type: str = "mlp_gelu"
    depth: int = 1


@dataclass(frozen=True)
class VQConfig:
    """The image tokenizer of Janus and Janus-Pro (SPEC section 3); defaults are the published "VQ-16"."""

    codebook_size: int = 16384
    codebook_dim: int = 8
    l2_norm: bool = True
    show_usage: bool = True
    commit_loss_beta: float = 0.25
    entropy_loss_ratio: float = 0.0
    ch: int = 128
    encoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    z_channels: int = 256
    dropout: float = 0.0

    @property
    def stride(self) -> int:
        """Pixels along one side of a code."""
        return int(2 ** (len(self.decoder_ch_mult) - 1))


@dataclass(frozen=True)
class UViTEncoderConfig:
    """The shallow U-ViT encoder of JanusFlow (SPEC section 6.1): latent and time -> features and time embedding."""

    input_channels: int = 3
    stride: int = 4
    kernel_size: int = 7
    padding: int | None = None  # None: ceil(kernel_size - stride)
    block_out_channels: tuple[int, ...] = (768,)
    layers_in_middle: int = 2
    hidden_size: int = 2048
    elementwise_affine: bool = True
    use_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0
    use_mid_block: bool = True

    @property
    def channels(self) -> int:
        """Width of the features."""
        return self.block_out_channels[0]


@dataclass(frozen=True)
class UViTDecoderConfig:
    """The shallow U-ViT decoder of JanusFlow (SPEC section 6.1): features, skip and time embedding -> velocity."""

    in_channels: int = 768
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (768,)
    upsamples: int = 2
    layers_in_middle: int = 2
    hidden_size: int = 2048
    elementwise_affine: bool = True
    use_bias: bool = True
    norm_eps: float = 1e-6
    dropout: float = 0.0
    use_mid_block: bool = True

    @property
    def channels(self) -> int:
        """Width of the skip features."""
        return self.block_out_channels[0]


@dataclass(frozen=True)
class VAEConfig:
    """A diffusers `AutoencoderKL` as the SDXL VAE uses it (SPEC section 6.2); defaults are stabilityai/sdxl-vae's."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.13025
    sample_size: int = 1024  # informative only: the VAE is convolutional

    @property
    def stride(self) -> int:
        """Pixels along one side of a latent position."""
        return int(2 ** (len(self.block_out_channels) - 1))


@dataclass(frozen=True)
class UnderstandingConfig:
    """The pathway that reads images: tower, adaptor, and for JanusFlow a learned begin vector before the patches."""

    encoder: TowerConfig
    adaptor: ProjectorConfig
    begin: bool = False

    @property
    def slots(self) -> int:
        """Language-model positions one image fills: its patches, and the begin vector if there is one."""
        return self.encoder.patches + int(self.begin)


@dataclass(frozen=True)
class TokenGenerationConfig:
    """Images as a grid of VQ codes, one language-model position each (Janus, Janus-Pro). SPEC section 4."""

    tokenizer: VQConfig
    adaptor: ProjectorConfig
    head_dim: int  # hidden width of the image head
    grid: tuple[int, int]  # codes down, codes across
    default_guidance: float = 5.0
    # The blank (unconditional) prompt of classifier-free guidance replaces the text by pads that are attended to.
    attends_blank: bool = True
    # The first code stands behind <begin_of_image>.
    replaces_begin: bool = False
    # Codes are tokens like words: one cross-entropy, one mean over all of them.
    counts_with_text: bool = True
    # Pictures can be shown to it in a prompt, as codes (Janus-4o); and how much more the prompt counts than they do.
    shows: bool = True
    default_image_guidance: float = 5.0

    @property
    def positions(self) -> int:
        """Language-model positions of an image: its codes."""
        return self.grid[0] * self.grid[1]

    def steps(self, asked: int) -> int:
        """Steps that an image takes: a code each, whatever was asked for."""
        return self.positions

    @property
    def elements(self) -> int:
        """Numbers that one image's loss is a sum over: its codes."""
        return self.positions

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.grid[0] * self.tokenizer.stride, self.grid[1] * self.tokenizer.stride


@dataclass(frozen=True)
class FlowGenerationConfig:
    """Images as a latent carried from noise by rectified flow, all positions at once (JanusFlow). SPEC section 6."""

    encoder: UViTEncoderConfig
    decoder: UViTDecoderConfig
    latent_size: tuple[int, int] = (48, 48)  # latent positions down, across
    vae: VAEConfig = field(default_factory=VAEConfig)
    default_guidance: float = 2.0
    # The blank prompt is not attended to: only the begin-of-sentence token and the image itself are.
    attends_blank: bool = False
    # The time embedding stands in the place of <begin_of_image>.
    replaces_begin: bool = True
    counts_with_text: bool = False
    # No paper says how a latent would stand in a prompt.
    shows: bool = False
    default_image_guidance: float = 0.0

    def __post_init__(self) -> None:
        for side in self.latent_size:
            _require(
                side % self.encoder.stride == 0,
                f"latent_size {list(self.latent_size)} is not a multiple of the flow encoder's stride {self.encoder.stride}",
            )

    @property
    def positions(self) -> int:
        """Language-model positions of one step: the time, then the latent tokens."""
        return 1 + self.grid[0] * self.grid[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Latent tokens down, across."""
        return self.latent_size[0] // self.encoder.stride, self.latent_size[1] // self.encoder.stride

    def steps(self, asked: int) -> int:
        """Steps that an image takes: as many as were asked for."""
        return asked

    @property
    def elements(self) -> int:
        """Numbers that one image's loss is a sum over: those of its latent."""
        return self.encoder.input_channels * self.latent_size[0] * self.latent_size[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.latent_size[0] * self.vae.stride, self.latent_size[1] * self.vae.stride


GenerationConfig = TokenGenerationConfig | FlowGenerationConfig


@dataclass(frozen=True)
class JanusConfig:
    """A whole model: one language model, one pathway that reads images, one that paints them."""

    language: LanguageConfig
    understanding: UnderstandingConfig
    generation: GenerationConfig


def _siglip_large(image_size: int = 384) -> TowerConfig:
    return TowerConfig(image_size=image_size, select_layer=-1)


def _janus(language: LanguageConfig) -> JanusConfig:
    width = language.hidden_size
    tower = _siglip_large()
    return JanusConfig(
        language=language,
        understanding=UnderstandingConfig(tower, ProjectorConfig(tower.width, width, "mlp_gelu", depth=2)),
        generation=TokenGenerationConfig(
            tokenizer=VQConfig(), adaptor=ProjectorConfig(8, width, "mlp_gelu", depth=2), head_dim=width, grid=(24, 24)
        ),
    )


_LLAMA_1B = LanguageConfig(
    vocab_size=102400,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    max_position_embeddings=16384,
)
_LLAMA_7B = replace(
    _LLAMA_1B,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=30,
    num_attention_heads=32,
    num_key_value_heads=32,
    head_dim=128,
)

# The published models (reference/layout/*.json). Janus-1.3B and Janus-Pro-1B differ in weights and template, not in sizes.
PRESETS: dict[str, JanusConfig] = {
    "janus-1.3b": _janus(_LLAMA_1B),
    "janus-pro-1b": _janus(_LLAMA_1B),
    "janus-pro-7b": _janus(_LLAMA_7B),
    "janusflow-1.3b": JanusConfig(
        language=_LLAMA_1B,
        understanding=UnderstandingConfig(_siglip_large(), ProjectorConfig(1024, 2048, "linear"), begin=True),
        generation=FlowGenerationConfig(
            encoder=UViTEncoderConfig(input_channels=4, stride=2, kernel_size=2, padding=0),
            decoder=UViTDecoderConfig(out_channels=4, upsamples=1),
        ),
    ),
}


def square_grid(positions: int) -> tuple[int, int]:
    """The square grid of that many positions; ConfigError if there is none."""
    side = isqrt(positions)
    _require(side * side == positions, f"{positions} image positions form no square; give the grid as [height, width]")
    return side, side
