"""Training of the vision tower, before any language model: captions by the sigmoid loss (SigLIP, section 3), labels of patches.

The sigmoid loss is what the published tower learned from. At the size of the bundled models it teaches colours sooner than
shapes; but the synthetic world knows what covers each patch, and asking for that through linear heads teaches both. What is kept
is the tower alone. Dims: B pictures, P patches, C tower width, T words, E width of what pictures and captions are compared in.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import TowerConfig
from openjanus.data.shapes import COLOURS, SHAPES, draw, label_map
from openjanus.data.shapes_streams import Painting, category, painting
from openjanus.errors import ConfigError
from openjanus.models.siglip import Block, SiglipTower
from openjanus.train.part_files import save_part
from openjanus.train.pictures import UNSEEN, places, to_pixels
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Task

PREFIX = "understanding.encoder."
# What a stage's mix may name: one object and its name, or any scene and its caption.
KINDS = ("single", "scenes")
# Captions are words by their hash: no vocabulary to keep, and of a few hundred words hardly two share a row.
_ROWS = 4096
_MEASURED = 128


@dataclass(frozen=True)
class EncoderSettings:
    """What a run of the encoder can be told."""

    tower: TowerConfig = field(default_factory=TowerConfig)
    captions: float = 1.0
    """Weight of the sigmoid loss."""
    labels: float = 1.0
    """Weight of the labels of patches: a cross-entropy each for colour and shape of what covers them, a distance for where that
    is and how wide, a yes or no for whether its centre lies there. What nobody asks a tower for, it does not tell."""
    text_layers: int = 0
    """Blocks of the text tower; with 0 a caption is the mean of its words."""
    temperature: float = 10.0
    """What similarities are multiplied by at first, learned as its logarithm (SigLIP: 10)."""
    bias: float = -10.0
    """What is added to them at first: nearly all pairs are wrong ones (SigLIP: -10)."""


@dataclass(frozen=True)
class Lesson:
    """pixels [B, 3, S, S]; words [B, T], 0 behind the end; the labels of data.shapes.Labels, P = G * G patches in row order:
    colours, shapes [B, P], places [B, P, 3], hearts [B, P]."""

    pixels: Tensor
    words: Tensor
    colours: Tensor
    shapes: Tensor
    places: Tensor
    hearts: Tensor

    def to(self, device: torch.device) -> "Lesson":
        """The same on a device."""
        return Lesson(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))


def words_of(texts: Sequence[str]) -> Tensor:
    """The words of texts as rows of an embedding, int64 [B, T], 0 behind the end of the shorter ones."""
    found = [[1 + crc32(word.strip(".,!?").encode()) % (_ROWS - 1) for word in text.lower().split()] for text in texts]
    longest = max(map(len, found))
    return torch.tensor([row + [0] * (longest - len(row)) for row in found])


def sigmoid_loss(pictures: Tensor, captions: Tensor, same: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each picture with each caption is a yes or no of its own: the sum of -log sigmoid(+-(scale * cosine + bias)).

    pictures, captions: [B, E]; same, bool [B, B]: which captions are true of which pictures.
    """
    cosines = F.normalize(pictures, dim=-1) @ F.normalize(captions, dim=-1).T
    logits = cosines * scale + bias
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum()


class TextTower(nn.Module):
    """Words [B, T] -> one vector a caption [B, E]: their mean, after transformer blocks if there are any."""

    def __init__(self, width: int, layers: int, like: TowerConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(_ROWS, width, padding_idx=0)
        self.positions = nn.Parameter(0.02 * torch.randn(64, width))
        self.blocks = nn.Sequential(*(Block(like) for _ in range(layers)))
        self.project = nn.Linear(width, width)

    def forward(self, words: Tensor) -> Tensor:
        there = (words != 0).unsqueeze(-1)
        embedded = self.embed(words)
        # Empty places are read too, as words that mean nothing; they are left out of the mean.
        hidden = self.blocks(embedded + self.positions[: words.shape[1]]) if len(self.blocks) else embedded
        return self.project((hidden * there).sum(1) / there.sum(1))


class Teaching(nn.Module):
    """The tower, and all that teaches it and is thrown away."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        width = settings.tower.width
        self.tower = SiglipTower(settings.tower)
        self.colour = nn.Linear(width, 1 + len(COLOURS))
        self.shape = nn.Linear(width, 1 + len(SHAPES))
        self.place = nn.Linear(width, 3)
        self.heart = nn.Linear(width, 1)
        self.text = TextTower(width, settings.text_layers, settings.tower)
        self.log_scale = nn.Parameter(torch.tensor([math.log(settings.temperature)]))
        self.bias = nn.Parameter(torch.tensor([settings.bias]))
        self.captions, self.labels = settings.captions, settings.labels

    def teach(self, lesson: Lesson) -> dict[str, Tensor]:
        """Sums by name: the captions' loss over pictures, the labels' over patches."""
        patches = self.tower(lesson.pixels)
        losses = {}
        if self.captions:
            pictures = self.tower.vision_tower.attn_pool(patches)
            # Of two equal captions in a batch, both are true of both pictures.
            same = (lesson.words[:, None] == lesson.words[None]).all(-1)
            losses["captions"] = sigmoid_loss(
                pictures.float(), self.text(lesson.words).float(), same, self.log_scale.exp(), self.bias
            )
        if self.labels:
            for name, head, wanted in (("colour", self.colour, lesson.colours), ("shape", self.shape, lesson.shapes)):
                losses[name] = F.cross_entropy(head(patches).float().flatten(0, 1), wanted.flatten(), reduction="sum")
            losses["place"] = F.l1_loss(self.place(patches).float(), lesson.places, reduction="sum") / 3
            hearts = self.heart(patches).float().squeeze(-1)
            losses["heart"] = F.binary_cross_entropy_with_logits(hearts, lesson.hearts.float(), reduction="sum")
        return losses

    def read(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest colour and shape of each patch, [B, P] each."""
        patches = self.tower(pixels)
        return self.colour(patches).argmax(-1), self.shape(patches).argmax(-1)


class EncoderTask(Task[Lesson]):
    """The task: settings are EncoderSettings. Negatives of the sigmoid loss are those of the micro-batch."""

    module: Teaching
    blocks = ("tower.vision_tower.blocks",)
    entrances = ("teach", "read")

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings: EncoderSettings = recipe.settings
        tower = self.settings.tower
        if not tower.ignore_head or tower.image_size % tower.patch_size:
            raise ConfigError("settings.tower must leave its head (ignore_head) and its patches must tile image_size")
        self.module = Teaching(self.settings)

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[Lesson]]:
        unknown = set(stage.mix) - set(KINDS)
        if unknown:
            raise ConfigError(f"stages.{stage.name}.mix names {unknown.pop()}; an encoder learns from {' and '.join(KINDS)}")
        made = []
        for own in places(self.recipe, stage, step, rank, world):
            lesson = self._lesson([self._painting(stage.mix, k) for k in own])
            patches = lesson.colours.numel()
            counts = {"captions": len(own), **dict.fromkeys(("colour", "shape", "place", "heart"), patches)}
            made.append(Batch(lesson, counts, tokens=patches))
        return made

    def _painting(self, mix: Mapping[str, int], k: int) -> Painting:
        """Sample k of the run: of every sum(mix) in a row, the first are single objects."""
        singles, scenes = mix.get("single", 0), mix.get("scenes", 0)
        single = k % ((singles + scenes) or 1) < singles
        return (category if single else painting)(self.recipe.seed, k)

    def _lesson(self, shown: Sequence[Painting]) -> Lesson:
        tower = self.settings.tower
        labels = [label_map(one.scene, tower.image_size, tower.patch_size) for one in shown]
        return Lesson(
            to_pixels([draw(one.scene, tower.image_size) for one in shown]),
            words_of([one.text for one in shown]),
            **{
                name: torch.stack([torch.from_numpy(getattr(label, name)).flatten(0, 1) for label in labels])
                for name in ("colours", "shapes", "places", "hearts")
            },
        )

    def losses(self, content: Lesson) -> Mapping[str, Loss]:
        weights = {"captions": self.settings.captions}
        return {name: Loss(total, weights.get(name, self.settings.labels)) for name, total in self.module.teach(content).items()}

    def measure(self, pictures: int = _MEASURED) -> dict[str, float]:
        """On scenes never learned from: how often the colour and the shape of a patch with something on it are read right."""
        device = next(self.module.parameters()).device
        lesson = self._lesson([painting(self.recipe.seed, UNSEEN + k) for k in range(pictures)]).to(device)
        read = self.module.read(lesson.pixels)
        there = lesson.colours > 0
        right = {"colour": read[0] == lesson.colours, "shape": read[1] == lesson.shapes}
        found = {name: float(one[there].float().mean()) for name, one in right.items()}
        return found | {"background": float(right["colour"][~there].float().mean())}

    def preview(self, folder: Path | None, step: int) -> None:
        """A line of what `measure` finds."""
        found = self.measure()
        if folder is not None:
            text = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
            (folder / "patches.txt").write_text(f"read right, of {_MEASURED} scenes' patches: {text}\n", encoding="utf-8")

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """The tower under its published names, for `load_part`."""
        own = {name.removeprefix("tower."): one for name, one in tensors.items() if name.startswith("tower.")}
        save_part(folder, PREFIX, own, {"params": asdict(self.settings.tower)})
