"""Where an autoencoder of one's own pictures finds them, and the weights of its perceptual term."""

from dataclasses import dataclass

from openjanus.errors import ConfigError
from openjanus.train.perceptual import Perceptual, Vgg16, lpips_weights
from openjanus.train.pictures import FilePictures
from openjanus.train.reconstruction import ReconstructionSettings


@dataclass(frozen=True)
class PictureFiles(ReconstructionSettings):
    """And where things lie."""

    pictures: tuple[str, ...] = ()
    """Folders; everything below them is read."""
    vgg: str = ""
    """torchvision's weights of VGG16."""
    lpips: str = ""
    """LPIPS's weights of its channels; none: all count alike."""

    def opened(self, seed: int) -> tuple[FilePictures, Perceptual | None]:
        """The pictures, and LPIPS unless the perceptual term is switched off; ConfigError if its weights are not named."""
        features = None
        if self.likeness.perceptual:
            if not self.vgg:
                raise ConfigError(
                    "settings.vgg names no file; give torchvision's vgg16-397923af.pth, or settings.likeness.perceptual=0"
                )
            features = Perceptual(Vgg16.from_file(self.vgg), lpips_weights(self.lpips) if self.lpips else None)
        return FilePictures(self.pictures, self.size, seed), features
