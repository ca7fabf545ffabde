"""Images from the web, for servers that allow it: only from hosts that are named, never from inside the network.

Each hop of a redirect is checked as the first: scheme, port, host, and every address that the name stands for. The connection
goes to the very address that was checked, so a name that changes its mind in between is of no use. Nothing that was fetched is
told.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

from openjanus.errors import ImageError
from openjanus.serve.waiting import within

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # all that has been given out of IPv6 (RFC 4291)
# Given out, and not to anybody's machine, which not every Python knows: for documents (RFC 9637), old relays (RFC 7526).
_NOBODYS = (ipaddress.ip_network("3fff::/20"), ipaddress.ip_network("192.88.99.0/24"))


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, also where it is wrapped in another."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST or address.teredo is not None:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NOBODYS)


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; ImageError if that is no address."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise ImageError("the image's address leads on to what is no web address") from None


async def resolve(host: str, port: int) -> list[str]:
    """The addresses that a name stands for."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True)
class RemoteImages:
    """What may be fetched. hosts: exact names, or "*" for any; none: nothing. seconds: for all of it, redirects counted."""

    hosts: tuple[str, ...] = ()
    most_bytes: int = 32 << 20
    seconds: float = 20
    redirects: int = 3
    ports: tuple[int, ...] = (80, 443)
    resolve: Callable[[str, int], Awaitable[list[str]]] = resolve
    allows: Callable[[Address], bool] = is_public

    async def fetch(self, url: str) -> bytes:
        """The bytes of an image at a web address; ImageError if it may not be fetched, or is none."""
        if not self.hosts:
            raise ImageError("images are not fetched from the web; send them as data: URLs (base64)")
        try:
            return await within(self.seconds, self._follow(url))
        except asyncio.TimeoutError:
            raise ImageError(f"the image did not arrive within {self.seconds:g} s; send it as a data: URL") from None
        except httpx.HTTPError as error:
            raise ImageError(f"the image could not be fetched ({type(error).__name__}); send it as a data: URL") from None

    async def _follow(self, url: str) -> bytes:
        for _ in range(self.redirects + 1):
            found = await self._hop(url)
            if isinstance(found, bytes):
                return found
            url = found
        raise ImageError(f"the image's address leads on more than {self.redirects} times; give the last address")

    async def _hop(self, url: str) -> bytes | str:
        """The image at an address, or the address that it leads on to."""
        address, host, asked = await self._checked(url)
        # No proxy of the environment, no redirect on its own.
        async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=self.seconds) as client:
            headers = {"Host": asked.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"}
            request = client.build_request("GET", asked.copy_with(host=address), headers=headers)
            request.extensions["sni_hostname"] = host
            answer = await client.send(request, stream=True)
            try:
                if answer.is_redirect:
                    return _joined(url, answer.headers.get("location", ""))
                if answer.status_code != 200:
                    raise ImageError(f"the image's address answers with status {answer.status_code}; send it as a data: URL")
                if not answer.headers.get("content-type", "").lower().startswith("image/"):
                    raise ImageError("what is at the image's address is no image; give the address of an image file")
                return await self._body(answer)
            finally:
                await answer.aclose()

    async def _body(self, answer: httpx.Response) -> bytes:
        data = bytearray()
        async for part in answer.aiter_raw():  # as it comes: what is packed may be far larger
            data += part
            if len(data) > self.most_bytes:
                raise ImageError(f"the image has more than {self.most_bytes:,} bytes; send a smaller one")
        return bytes(data)

    async def _checked(self, url: str) -> tuple[str, str, httpx.URL]:
        """The address to connect to, the host's name and the parsed URL; ImageError if it may not be asked."""
        try:
            asked = httpx.URL(url)
            host, parts = asked.host.rstrip(".").lower(), urlsplit(url)
            port = asked.port or (443 if asked.scheme == "https" else 80)
        except (httpx.InvalidURL, ValueError, UnicodeError, TypeError):
            raise ImageError("the image's address is no web address") from None
        if asked.scheme not in ("http", "https") or not host or parts.username is not None or asked.userinfo:
            raise ImageError("the image's address must be http:// or https://, without a user name")
        if port not in self.ports:
            raise ImageError(f"the image's address has port {port}; {' and '.join(map(str, self.ports))} are allowed")
        if "*" not in self.hosts and host not in self.hosts:
            raise ImageError(f"images are not fetched from {host[:100]}; allowed are {', '.join(self.hosts)}")
        try:
            found = await self.resolve(host, port)
            addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in found]
        except (OSError, ValueError, UnicodeError):
            raise ImageError(f"{host[:100]} cannot be found") from None
        # All of them: one of several that leads inside is a trap.
        if not addresses or not all(self.allows(address) for address in addresses):
            raise ImageError(f"{host[:100]} is not an address of the open internet, and no others are asked")
        return str(addresses[0]), host, asked
