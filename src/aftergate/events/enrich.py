"""Address to network: what the log says, else an operator's mmdb files, else installed tables, else listed blocks and the prefix alone.

Two optional tables serve when they are installed (extra `enrich`): `iporigin` (clouds, hosters, VPN and Tor exits; about 5 MiB) and
`geoip2fast` (organisation and country as of 2024; about 115 MiB, a third of a second to load). Both are loaded with the first public
address. Neither knows AS numbers, so an organisation gets its number from `networks.names()`; where that list has none the network is
the address prefix, as it is without tables.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from os import PathLike, fspath
from typing import Any, Final

from aftergate.errors import ConfigError
from aftergate.events import networks
from aftergate.events.countries import alpha2
from aftergate.vocabulary import Origin

Address = IPv4Address | IPv6Address

_PRIVATE: Final = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)
_PORT: Final = re.compile(r"^(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}$")
_BRACKET: Final = re.compile(r"^\[([^\]]+)\](?::\d{1,5})?$")
_QUAD: Final = re.compile(r"^\d{1,3}(?:\.\d{1,3}){3}$")
_NOTHING: Final = frozenset({"", "null", "none", "nil", "n/a", "na", "redacted", "unknown", "undefined", "0.0.0.0", "::", "hidden"})  # noqa: S104

# iporigin's kinds and providers in our words. Left out: labels under which it lists ranges that serve access lines too.
_TABLE_KINDS: Final = {"hosting": "hosting", "cdn": "relay", "vpn": "vpn", "tor": "tor", "bot": "vendor"}
_TABLE: Final[dict[str, networks.Known]] = {
    "Amazon AWS": ("cloud", "aws"),
    "Amazonbot": ("cloud", "aws"),
    "Microsoft Azure": ("cloud", "azure"),
    "Bingbot": ("cloud", "azure"),
    "GitHub": ("cloud", "azure"),  # hosted runners; the forge's own ranges are listed blocks
    "GPTBot": ("cloud", "azure"),
    "Google Cloud": ("cloud", "gcp"),
    "Googlebot": ("vendor", "google"),
    "Oracle Cloud": ("cloud", "oracle"),
    "Alibaba Cloud": ("cloud", "alibaba"),
    "Tencent Cloud": ("cloud", "tencent"),
    "IBM Cloud": ("cloud", "ibm"),
    "Huawei Cloud": ("cloud", "huawei"),
    "OVHcloud": ("hosting", "ovh"),
    "CDN77": ("hosting", "cdn77"),
    "BunnyCDN": ("hosting", "bunny"),
    "Gcore": ("hosting", "gcore"),
    "DataCamp": ("vpn", "datacamp"),
    "ProtonVPN": ("vpn", "proton"),
    "Apple Private Relay": ("relay", "apple-relay"),
    "Applebot": ("vendor", "apple"),
    "ClaudeBot": ("vendor", "anthropic"),
}
_TABLE_SKIP: Final = frozenset({"Cogent", "Scaleway", "Google"})
_ANONYMOUS: Final = frozenset({"tor", "vpn", "relay"})


class Enricher:
    """Looks addresses up. Callers cache: a look-up costs tens of microseconds.

    `mmdb`: database files in MaxMind's format (ASN, Country, City, Anonymous-IP or alike), asked in the order given.
    `tables`: use the optional tables; None means if installed.
    Raises: ConfigError, if an mmdb file cannot be read, or if tables are asked for and none is installed.
    """

    def __init__(self, mmdb: Sequence[str | PathLike[str]] = (), tables: bool | None = None) -> None:
        self._mmdb = [_open_mmdb(fspath(path)) for path in mmdb]
        present = [name for name in ("iporigin", "geoip2fast") if importlib.util.find_spec(name) is not None] if tables is not False else []
        if tables and not present:
            raise ConfigError("address tables are not installed", hint="pip install 'aftergate[enrich]', or give an mmdb file")
        self._wanted = present
        self._kinds: Any = None
        self._places: Any = None
        self._used: dict[str, str] = {}

    @property
    def tables(self) -> list[tuple[str, str]]:
        """(name, date) of every table that answered so far, for outputs: the reader should know how old an answer is."""
        return sorted([("aftergate networks", networks.WRITTEN), *((name, date) for name, _, date in self._mmdb), *self._used.items()])

    def origin(self, ip: str, asn: int | None, country: str | None, asn_name: str | None, proxy: bool, trustworthy: bool) -> Origin:
        """The Origin of what a log has in its address field, with what the log itself says of it.

        `ip` may carry a port, brackets, a zone, or be an IPv6-mapped IPv4 address. A text that is no address is a service's name. `country`
        is a code or an English name. `proxy`: the log's vendor calls the address an anonymiser.
        """
        text = ip.strip()
        address = parse(text)
        if address is None:
            if text.strip("<>()[]-._*\"' ").lower() in _NOTHING:
                return Origin(trustworthy=trustworthy, basis="none")
            return Origin(ip=None, net=f"service:{text}", network="service", trustworthy=trustworthy, basis="log")
        plain = str(address)
        if any(address in net for net in _PRIVATE):
            return Origin(ip=plain, net="private", network="private", trustworthy=trustworthy, basis="prefix")
        place = alpha2(country)
        number = asn or None
        name = asn_name or None
        if number is None and name is not None:
            number = networks.asn_of(name)
        label = _label(number, name, address)
        basis = "log" if number or name else "prefix"
        if self._mmdb and (number is None or place is None or label is None):
            found = self._ask_mmdb(plain)
            if found is not None:
                number_db, name_db, place_db, label_db = found
                if number is None and number_db is not None:
                    number, name, basis = number_db, name or name_db, "mmdb"
                    label = _label(number, name, address)
                name = name or name_db
                place = place or place_db
                if label_db is not None and (label is None or label_db[0] in _ANONYMOUS):
                    label, basis = label_db, "mmdb"
        if self._wanted:
            listed = self._ask_kinds(plain)
            hidden = listed is not None and listed[0] in _ANONYMOUS
            if listed is not None and (label is None or listed[0] == "tor" or (hidden and label[0] in ("cloud", "hosting", "isp"))):
                label = listed
                basis = "table" if number is None else basis
            if number is None or place is None:
                name_t, place_t = self._ask_places(plain)
                place = place or place_t
                if number is None and name is None and name_t is not None:
                    name = name_t
                    number = networks.asn_of(name_t)
                    label = label or _label(number, name_t, address)
                    basis = "table"
        if label is not None and number is None and basis == "prefix":
            basis = "table"
        network, provider = label if label is not None else ("unknown", None)
        if proxy and network not in ("tor", "vpn", "relay", "proxy"):
            network = "vpn"
        return Origin(
            ip=plain,
            net=f"AS{number}" if number else prefix(address),
            asn=number,
            asn_name=name,
            network=network,
            provider=provider,
            country=place,
            trustworthy=trustworthy,
            basis=basis,
        )

    def _ask_mmdb(self, ip: str) -> tuple[int | None, str | None, str | None, networks.Known | None] | None:
        if not self._mmdb:
            return None
        from maxminddb import InvalidDatabaseError

        number: int | None = None
        name: str | None = None
        place: str | None = None
        label: networks.Known | None = None
        hit = False
        for path, reader, _ in self._mmdb:
            try:
                record = reader.get(ip)
            except ValueError:  # an IPv6 address asked of an IPv4 file
                continue
            except InvalidDatabaseError as error:
                raise ConfigError(f"database is damaged: {error}", where=path, hint="download the file again") from None
            if not isinstance(record, dict):
                continue
            hit = True
            inner = record.get("traits")
            traits: dict[str, Any] = inner if isinstance(inner, dict) else {}
            number = number or _number(
                record.get("autonomous_system_number") or traits.get("autonomous_system_number") or record.get("asn")
            )
            name = name or _text(
                record.get("autonomous_system_organization")
                or traits.get("autonomous_system_organization")
                or record.get("as_name")
                or record.get("name")
            )
            place = place or _place(record)
            label = label or _anonymous(record) or _anonymous(traits)
        return (number, name, place, label) if hit else None

    def _ask_kinds(self, ip: str) -> networks.Known | None:
        if "iporigin" not in self._wanted:
            return None
        if self._kinds is None:
            self._kinds = importlib.import_module("iporigin")
            built = self._kinds.dataset_info().get("built_at", 0)
            self._used["iporigin"] = datetime.fromtimestamp(int(built), UTC).date().isoformat()
        found = self._kinds.classify(ip)
        kind = _TABLE_KINDS.get(found.kind)
        if kind is None or found.provider in _TABLE_SKIP:
            return None
        return _TABLE.get(found.provider) or (kind, found.provider.lower().replace(" ", "-") or None)

    def _ask_places(self, ip: str) -> tuple[str | None, str | None]:
        """(organisation, country) by geoip2fast."""
        if "geoip2fast" not in self._wanted:
            return None, None
        if self._places is None:
            self._places = importlib.import_module("geoip2fast").GeoIP2Fast(geoip2fast_data_file="geoip2fast-asn-ipv6.dat.gz")
            stamp = re.search(r"(20\d\d)(\d\d)(\d\d)", str(getattr(self._places, "source_info", "")))
            self._used["geoip2fast"] = "-".join(stamp.groups()) if stamp else "2024"
        found = self._places.lookup(ip)
        name = found.asn_name if found.asn_name and found.asn_name != "IANA.ORG" else None
        return name, alpha2(found.country_code)


def parse(text: str) -> Address | None:
    """The address in a log's field, or None if there is none.

    Takes `1.2.3.4:5678`, `[2001:db8::1]:443`, `fe80::1%eth0`, `::ffff:1.2.3.4`, capitals, blanks, octets with leading zeros (which are
    decimal here), and of a list of forwarded addresses the first.
    """
    text = text.partition(",")[0].strip()
    if not text or text[0] not in "0123456789abcdefABCDEF:[":
        return None
    match = _PORT.match(text) or _BRACKET.match(text)
    if match is not None:
        text = match.group(1)
    if "%" in text:
        text = text.partition("%")[0]
    if _QUAD.match(text):
        text = ".".join(str(int(octet)) for octet in text.split("."))
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return None if address.is_unspecified else address


def prefix(address: Address) -> str:
    """The site of an address as far as the address tells: /24 of IPv4, /48 of IPv6."""
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))


def _label(number: int | None, name: str | None, address: Address) -> networks.Known | None:
    """Kind and provider. The number decides, except where an operator puts clouds and other things under one number."""
    block = networks.by_address(address)
    listed = networks.by_asn(number) if number is not None else None
    if listed is None:
        return block or (networks.by_name(name) if name else None)
    if block is not None and (listed[0] in ("vendor", "relay") or block[0] in _ANONYMOUS):
        return block
    return listed


def _open_mmdb(path: str) -> tuple[str, Any, str]:
    import maxminddb  # a third of all that a scan imports, and most have no such file

    try:
        reader = maxminddb.open_database(path)
    except OSError as error:
        raise ConfigError(f"cannot read: {error.strerror or error}", where=path) from None
    except (maxminddb.InvalidDatabaseError, ValueError):
        raise ConfigError("is no mmdb database", where=path) from None
    built = datetime.fromtimestamp(reader.metadata().build_epoch, UTC).date().isoformat()
    return path, reader, built


def _place(record: dict[str, Any]) -> str | None:
    for key in ("country", "registered_country"):
        value = record.get(key)
        code = value.get("iso_code") if isinstance(value, dict) else value
        if isinstance(code, str) and alpha2(code):
            return alpha2(code)
    return alpha2(_text(record.get("country_code")))


def _anonymous(record: dict[str, Any]) -> networks.Known | None:
    if record.get("is_tor_exit_node"):
        return "tor", "tor"
    if any(record.get(key) for key in ("is_anonymous_vpn", "is_residential_proxy", "is_public_proxy", "is_anonymous_proxy")):
        return "vpn", None
    return ("hosting", None) if record.get("is_hosting_provider") else None


def _number(value: object) -> int | None:
    if isinstance(value, str):
        digits = value.upper().removeprefix("AS")
        return int(digits) if digits.isdigit() and int(digits) else None
    return value if isinstance(value, int) and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
