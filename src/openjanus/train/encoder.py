"""Training of the vision tower, before any language model: captions by the sigmoid loss (SigLIP, section 3), labels of patches.

The sigmoid loss is what the published tower learned from, and all that captions of one's own can teach. At the size of the
bundled models it teaches colours sooner than shapes; but the synthetic world knows what covers each patch, and asking for that
through linear heads teaches both. What is kept is the tower alone. Dims: B pictures, P patches, C tower width, T words, E width
of what pictures and captions are compared in.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import TowerConfig
from openjanus.data.shapes import COLOURS, SHAPES
from openjanus.errors import ConfigError
from openjanus.models.siglip import Block, SiglipTower
from openjanus.train.captioned import Captioned, CaptionedScenes, Shown
from openjanus.train.part_files import save_part
from openjanus.train.pictures import UNSEEN, places
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Task

PREFIX = "understanding.encoder."
# Words of a caption that the blocks of the text tower read (SigLIP: 64 tokens).
POSITIONS = 64
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
    """Blocks of the text tower, which read the first 64 words of a caption; with 0 it is the mean of its words."""
    temperature: float = 10.0
    """What similarities are multiplied by at first, learned as its logarithm (SigLIP: 10)."""
    bias: float = -10.0
    """What is added to them at first: nearly all pairs are wrong ones (SigLIP: -10)."""


@dataclass(frozen=True)
class Lesson:
    """pixels [B, 3, S, S]; words [B, T], 0 behind the end; perhaps the labels of data.shapes.Labels by name, P = G * G patches in
    row order: colours, shapes [B, P], places [B, P, 3], hearts [B, P]."""

    pixels: Tensor
    words: Tensor
    labels: Mapping[str, Tensor]

    def to(self, device: torch.device) -> "Lesson":
        """The same on a device."""
        labels = {name: one.to(device, non_blocking=True) for name, one in self.labels.items()}
        return Lesson(self.pixels.to(device, non_blocking=True), self.words.to(device, non_blocking=True), labels)


def lesson_of(shown: Sequence[Shown]) -> Lesson:
    """Pictures and captions as one lesson."""
    words = [torch.tensor(one.words) for one in shown]
    labels = [one.labels for one in shown if one.labels is not None]
    return Lesson(
        torch.stack([one.pixels for one in shown]),
        nn.utils.rnn.pad_sequence(words, batch_first=True),
        {
            name: torch.stack([torch.from_numpy(getattr(label, name)).flatten(0, 1) for label in labels])
            for name in ("colours", "shapes", "places", "hearts")
            if labels
        },
    )


def sigmoid_loss(pictures: Tensor, captions: Tensor, same: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each picture with each caption is a yes or no of its own: the sum of -log sigmoid(+-(scale * cosine + bias)).

    pictures, captions: [B, E]; same, bool [B, B]: which captions are true of which pictures.
    """
    cosines = F.normalize(pictures, dim=-1) @ F.normalize(captions, dim=-1).T
    logits = cosines * scale + bias
    return -F.logsigmoid(torch.where(same, logits, -logits)).sum()


def alike(words: Tensor) -> Tensor:
    """Which captions are true of which pictures, bool [B, B]: of two equal ones, both are true of both."""
    return (words[:, None] == words[None]).all(-1)


class TextTower(nn.Module):
    """Words [B, T] -> one vector a caption [B, E]: their mean, after transformer blocks if there are any.

    A caption's vector is the same in any company. Blocks read its first POSITIONS words.
    """

    def __init__(self, width: int, layers: int, like: TowerConfig, rows: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows, width, padding_idx=0)
        self.positions = nn.Parameter(0.02 * torch.randn(POSITIONS, width))
        self.blocks = nn.Sequential(*(Block(like) for _ in range(layers)))
        self.project = nn.Linear(width, width)

    def forward(self, words: Tensor) -> Tensor:
        if len(self.blocks):
            words = words[:, :POSITIONS]
        there = words != 0
        hidden = self.embed(words)
        if len(self.blocks):
            hidden = hidden + self.positions[: words.shape[1]]
        for block in self.blocks:
            hidden = block(hidden, there)
        return self.project((hidden * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True))


class Teaching(nn.Module):
    """The tower, and all that teaches it and is thrown away."""

    def __init__(self, settings: EncoderSettings, rows: int) -> None:
        super().__init__()
        width = settings.tower.width
        self.tower = SiglipTower(settings.tower)
        self.colour = nn.Linear(width, 1 + len(COLOURS))
        self.shape = nn.Linear(width, 1 + len(SHAPES))
        self.place = nn.Linear(width, 3)
        self.heart = nn.Linear(width, 1)
        self.text = TextTower(width, settings.text_layers, settings.tower, rows)
        self.log_scale = nn.Parameter(torch.tensor([math.log(settings.temperature)]))
        self.bias = nn.Parameter(torch.tensor([settings.bias]))
        self.captions, self.labels = settings.captions, settings.labels

    def teach(self, lesson: Lesson) -> dict[str, Tensor]:
        """Sums by name: the captions' loss over pictures, the labels' over patches."""
        patches = self.tower(lesson.pixels)
        losses = {}
        if self.captions:
            pictures, captions = self._compared(patches, lesson.words)
            losses["captions"] = sigmoid_loss(pictures, captions, alike(lesson.words), self.log_scale.exp(), self.bias)
        if self.labels:
            wanted = lesson.labels
            for name, head, right in (("colour", self.colour, wanted["colours"]), ("shape", self.shape, wanted["shapes"])):
                losses[name] = F.cross_entropy(head(patches).float().flatten(0, 1), right.flatten(), reduction="sum")
            losses["place"] = F.l1_loss(self.place(patches).float(), wanted["places"], reduction="sum") / 3
            hearts = self.heart(patches).float().squeeze(-1)
            losses["heart"] = F.binary_cross_entropy_with_logits(hearts, wanted["hearts"].float(), reduction="sum")
        return losses

    def _compared(self, patches: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and captions as they are compared, float32 [B, E] each."""
        return self.tower.vision_tower.attn_pool(patches).float(), self.text(words).float()

    def match(self, pixels: Tensor, words: Tensor) -> Tensor:
        """Which of the captions suits each picture best, [B]."""
        pictures, captions = self._compared(self.tower(pixels), words)
        return (F.normalize(pictures, dim=-1) @ F.normalize(captions, dim=-1).T).argmax(-1)

    def read(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest colour and shape of each patch, [B, P] each."""
        patches = self.tower(pixels)
        return self.colour(patches).argmax(-1), self.shape(patches).argmax(-1)


class EncoderTask(Task[Lesson]):
    """The task: settings are EncoderSettings; source: what is shown, scenes of the synthetic world unless something else is.

    Negatives of the sigmoid loss are those of the micro-batch.
    """

    module: Teaching
    blocks = ("tower.vision_tower.blocks",)
    entrances = ("teach", "read", "match")

    def __init__(self, recipe: Recipe, source: Captioned | None = None) -> None:
        self.recipe = recipe
        self.settings: EncoderSettings = recipe.settings
        tower = self.settings.tower
        if not tower.ignore_head or tower.image_size % tower.patch_size:
            raise ConfigError("settings.tower must leave its head (ignore_head) and its patches must tile image_size")
        self.source = source or CaptionedScenes(recipe.seed, tower)
        self._check_teachers()
        self.module = Teaching(self.settings, self.source.rows)

    def _check_teachers(self) -> None:
        settings = self.settings
        if not settings.captions and not settings.labels:
            raise ConfigError("settings.captions and settings.labels are both 0, so nothing is learned; raise one of them")
        if settings.labels and not self.source.labelled:
            raise ConfigError(
                f"settings.labels is {settings.labels}, but nobody knows what is on the patches of these pictures; set it to 0"
            )

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[Lesson]]:
        unknown, kinds = set(stage.mix) - set(self.source.kinds), " and ".join(self.source.kinds)
        if unknown:
            known = f"an encoder learns from {kinds}" if kinds else "these pictures are all of one kind, and it must name none"
            raise ConfigError(f"stages.{stage.name}.mix names {unknown.pop()}; {known}")
        made = []
        for own in places(self.recipe, stage, step, rank, world):
            lesson = lesson_of([self.source.shown(stage.mix, k) for k in own])
            patches = len(own) * self.settings.tower.patches
            labels = dict.fromkeys(("colour", "shape", "place", "heart"), patches) if lesson.labels else {}
            made.append(Batch(lesson, {"captions": len(own), **labels}, tokens=patches))
        return made

    def losses(self, content: Lesson) -> Mapping[str, Loss]:
        weights = {"captions": self.settings.captions}
        return {name: Loss(total, weights.get(name, self.settings.labels)) for name, total in self.module.teach(content).items()}

    def measure(self, pictures: int = _MEASURED) -> dict[str, float]:
        """On pictures never learned from: how often the colour and the shape of a patch with something on it are read right.

        Where labels are not learned: how often a picture's own caption is the one of all that suits it best.
        """
        device = next(self.module.parameters()).device
        lesson = lesson_of([self.source.shown({}, UNSEEN + k) for k in range(pictures)]).to(device)
        if not self.settings.labels:
            own = alike(lesson.words).gather(1, self.module.match(lesson.pixels, lesson.words)[:, None])
            return {"captions": float(own.float().mean())}
        read = self.module.read(lesson.pixels)
        there = lesson.labels["colours"] > 0
        right = {"colour": read[0] == lesson.labels["colours"], "shape": read[1] == lesson.labels["shapes"]}
        found = {name: float(one[there].float().mean()) for name, one in right.items()}
        return found | {"background": float(right["colour"][~there].float().mean())}

    def preview(self, folder: Path | None, step: int) -> None:
        """A line of what `measure` finds."""
        found = self.measure()
        if folder is not None:
            name, what = ("patches", "scenes' patches") if self.settings.labels else ("captions", "pictures")
            text = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
            (folder / f"{name}.txt").write_text(f"read right, of {_MEASURED} {what}: {text}\n", encoding="utf-8")

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """The tower under its published names, for `load_part`."""
        own = {name.removeprefix("tower."): one for name, one in tensors.items() if name.startswith("tower.")}
        save_part(folder, PREFIX, own, {"params": asdict(self.settings.tower)})
