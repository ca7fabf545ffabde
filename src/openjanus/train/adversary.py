"""The adversary of the image tokenizer: a patch discriminator and the hinge losses (LlamaGen's; pix2pix before it).

Dims: B pictures, h x w patches, each judged on its own.
"""

from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 0.2
_WIDEST = 8


class PatchDiscriminator(nn.Module):
    """Pixels [B, 3, H, W] -> one number a patch [B, 1, h, w]: above 0 for real, below for made.

    Kernels of 4; `layers` convolutions halve height and width and double the channels from `width` on, up to 8 times; two more
    keep the size. Batch norm is the whole batch's on one process and each process's own on several.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [width * min(2**level, _WIDEST) for level in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            stages += [
                nn.Conv2d(widths[level - 1], widths[level], 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(widths[level]),
                nn.LeakyReLU(_SLOPE),
            ]
        self.layers = nn.Sequential(*stages, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)

    @staticmethod
    def least(layers: int) -> int:
        """Pixels along one side below which no patch is left: each of the last two convolutions takes one off."""
        return int(3 * 2**layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def fooling_loss(made: Tensor) -> Tensor:
    """What the maker of pictures pays: less, the more real its pictures are called."""
    return -made.mean()


def telling_loss(real: Tensor, made: Tensor) -> Tensor:
    """What the discriminator pays: nothing where it calls real ones above 1 and made ones below -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())
