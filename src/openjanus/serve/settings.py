"""What a server may be told: where it listens, who may ask, how much."""

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from openjanus.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """How much one may ask for. Zero for rate and concurrent: as much as anybody likes.

    queue: answers and pictures that a model works on or keeps waiting; rate: requests a minute of one caller; concurrent:
    requests of one caller at a time; pixels: of an image, before it is decoded; characters: of all text in a request;
    body_seconds, header_seconds: how long a body, a head may take to arrive; seconds: how long a request may take;
    step_seconds: how long a step of the engine may take before the model counts as stuck; picture_seconds, picture_bytes: how
    long links to pictures hold, and how much memory they may hold.
    """

    queue: int = 256
    rate: int = 0
    concurrent: int = 0
    body_bytes: int = 32 << 20
    body_seconds: float = 120
    header_seconds: float = 20
    images: int = 16
    pixels: int = 64_000_000
    characters: int = 100_000
    n: int = 10
    seconds: float = 1800
    step_seconds: float = 600
    picture_seconds: float = 3600
    picture_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("seconds"):
                good, words = value > 0, "more than 0"
            else:
                least = 0 if name in ("rate", "concurrent", "images") else 1
                good, words = value >= least, f"{least} or more"
            if not good:
                raise ConfigError(f"{name} is {value}; it must be {words}")


@dataclass(frozen=True)
class ServeSettings:
    """How a server is set up.

    keys: who knows one of them may ask; none: everybody may. remote_images: hosts that images may be fetched from ("*": any
    public one); cors: origins whose pages may call the API; public_url: what links to pictures begin with, None for the
    address that was asked; log_prompts: whether logs hold what people write.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    insecure: bool = False
    limits: Limits = field(default_factory=Limits)
    remote_images: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    public_url: str | None = None
    log_prompts: bool = False
    drain_seconds: float = 60

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port is {self.port}; it must be from 0 (any free one) to 65535")
        try:
            urlsplit(self.public_url or "")
        except ValueError as error:
            raise ConfigError(f"public_url is {self.public_url}, no address ({error}); it must read https://HOST") from None
        for key in self.keys:
            if len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key:
                raise ConfigError("an API key must have 8 or more printable ASCII characters without spaces")
        if not self.keys and not self.insecure and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} can be reached from other machines and there is no API key: give one with --api-key or "
                "--api-key-file, listen on 127.0.0.1, or say --insecure if anybody may ask"
            )

    def knows_host(self, name: str) -> bool:
        """Whether the server may be asked by this name: any, unless nothing but its address keeps strangers away."""
        if self.keys or self.insecure or not is_loopback(self.host) or is_loopback(name):
            return True
        return self.public_url is not None and name == urlsplit(self.public_url).hostname


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
