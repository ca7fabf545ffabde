"""What a step keeps for its gradients, measured on pieces of a model at their full width: a block and a few tokens, one picture.

It grows in proportion to tokens, blocks and pictures. Measured once for all stages of a recipe.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from openjanus.config import JanusConfig
from openjanus.models import siglip
from openjanus.models.attention import rotary
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.llama import Block, Place, Positions, Turn

MEASURED = 64  # tokens


@cache
def kept_by_a_block(config: JanusConfig, half: bool, rank: int) -> tuple[float, float]:
    """Bytes that one block of the language model keeps of a token, and bytes of a token between blocks.

    half: in bfloat16. rank: of LoRA's matrices beside its layers, which are frozen then; 0 for none.
    """
    language = config.language
    block = Block(language, 0)
    if rank:
        block.requires_grad_(False)
        for module in list(block.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(module, name, _Matrices(layer, rank))

    def kept(length: int) -> int:
        x = torch.zeros(1, length, language.hidden_size, requires_grad=True)
        # Turned before they are attended to, as packed documents are.
        turn = Turn(*rotary(torch.arange(length)[None], language.head_size, language.rope_theta, torch.float32))
        at = Positions([Place(None, None)], turn=turn)
        with _precision(half):
            return saved_bytes(lambda: block(x, at), block)

    return _growth(kept), 4.0 * language.hidden_size


@cache
def kept_by_the_tower(config: JanusConfig, half: bool) -> float:
    """Bytes that the vision tower keeps of one image, if all of it is trained."""
    tower = config.understanding.encoder
    block = siglip.Block(tower)

    def kept(length: int) -> int:
        with _precision(half):
            return saved_bytes(lambda: block(torch.zeros(1, length, tower.width, requires_grad=True)), block)

    return _growth(kept) * tower.depth * (tower.image_size // tower.patch_size) ** 2


@cache
def kept_by_the_network(generation: FlowGeneration, half: bool) -> float:
    """Bytes that a flow's own network keeps of one picture. generation: may lie on the meta device."""
    sizes = generation.config
    network = deepcopy(generation)
    network.vae = None
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()

    def run(pictures: int) -> Tensor:
        latent = torch.zeros(pictures, sizes.encoder.input_channels, *sizes.latent_size)
        x, *rest = network.encode(latent, torch.zeros(pictures))
        return network.velocity(x, *rest)

    def kept(pictures: int) -> int:
        with _precision(half):
            return saved_bytes(lambda: run(pictures), network)

    return kept(2) - kept(1)


def _growth(kept: Callable[[int], int]) -> float:
    """Bytes of a token: the difference of two lengths, since weights that are cast do not grow with them."""
    return (kept(2 * MEASURED) - kept(MEASURED)) / MEASURED


def _precision(half: bool) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if half else nullcontext()


class _Matrices(nn.Module):
    """A frozen linear layer with LoRA's matrices beside it, as far as memory goes."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.up(self.down(x))


def saved_bytes(run: Callable[[], Any], module: nn.Module) -> int:
    """Bytes that autograd keeps after a run, without the module's own parameters; each storage once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(found.values())
