"""The host names that a server accepts, as a protection against requests from pages of other sites."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit


LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Hosts:
    """
    Accepted host names.

    Attributes:
        names: lower-case host names and addresses.
        proxies: those of `names` that a proxy may replace by another one in the `Host` header.
        addresses: whether any IP address is accepted. This is safe: DNS rebinding (an attacker points a domain name at
            this machine) needs a name.
    """

    names: frozenset[str]
    proxies: frozenset[str] = frozenset()
    addresses: bool = False

    def known(self, host: str) -> bool:
        """Whether the name in a `Host` header, with or without a port, is accepted."""
        name = _name(f"//{host}")
        return name in self.names or (self.addresses and _is_address(name))

    def same_site(self, origin: str, host: str) -> bool:
        """Whether the page that sends the request (`Origin`) was served by the requested host (`Host`)."""
        try:
            origin_host = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(origin_host) and (origin_host == host.lower() or _name(origin) in self.proxies)


def hosts_of(host: str, allowed: Iterable[str] = ()) -> Hosts:
    """The names of a server that listens on `host`, and the names given with `--allow-host`."""
    proxies = frozenset(name.lower().rstrip(".") for name in allowed)
    own = {host.lower(), socket.gethostname().lower()} if host in EVERYWHERE else {host.lower()}
    return Hosts(names=LOOPBACK | own | proxies, proxies=proxies, addresses=host in EVERYWHERE)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
