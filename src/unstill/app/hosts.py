"""The names under which a server may be asked: a page of another site must not reach it by a name of its own."""

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
    Attributes:
        names: lower-case host names and addresses.
        proxies: those of `names` whose pages may also call it under another one of them (a proxy that renames).
        addresses: any IP address is accepted. DNS rebinding (a name that an attacker owns is pointed at this machine)
            needs a name, so this opens nothing.
    """

    names: frozenset[str]
    proxies: frozenset[str] = frozenset()
    addresses: bool = False

    def known(self, host: str) -> bool:
        """Whether a `Host` header, with or without a port, is one of ours."""
        name = _name(f"//{host}")
        return name in self.names or (self.addresses and _is_address(name))

    def same_site(self, origin: str, host: str) -> bool:
        """Whether the page that asks (`Origin`) came from the host that is asked (`Host`)."""
        try:
            asked_from = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(asked_from) and (asked_from == host.lower() or _name(origin) in self.proxies)


def hosts_of(host: str, allowed: Iterable[str] = ()) -> Hosts:
    """The names of a server that listens on `host`, and those that were `allowed` by hand."""
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
