"""Every setting of the hub: one table, read from a file, the environment and flags, in rising order of weight.

    file         TOML, one key for each setting: `listen = "0.0.0.0:8443"`; given by --config or DAALU_HUB_CONFIG
    environment  DAALU_HUB_<NAME>
    flags        --<name>, with '-' for '_'

An error names the setting and where its value came from. Only `app` and `cli` read this; everything else is handed
values.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

import hub_server
from hub_server.domain.foreign import ForeignError, digits
from hub_server.domain.names import is_slug

ENVIRONMENT_PREFIX = "DAALU_HUB_"
# What Kubernetes puts into every pod where a Service is called daalu-hub.
_OF_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",") if word.strip()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


def _networks(value: Any) -> Any:
    try:
        return tuple(ip_network(word) if isinstance(word, str) else word for word in _words(value))
    except (TypeError, ValueError) as problem:
        raise ValueError(f"must be networks, as 10.0.0.0/8,fd00::/8: {problem}") from None


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_networks)]


class SettingsError(Exception):
    """A setting is wrong. The message names it, says where the value came from and what would be right."""


class Settings(BaseModel):
    """The settings. The description of each field is its line in the documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: Path = Field(
        Path("daalu-hub-data"), description="Folder of database, keys and certificate; made on first start."
    )
    database: str = Field("", description="sqlite:///PATH of the database; empty: in the data folder.")
    public_url: str = Field(
        "",
        description="How browsers, kubectl and edges reach this hub. Empty: https://localhost and the port of listen.",
    )
    listen: str = Field("0.0.0.0:8443", description="Address and port of HTTPS.")
    tls: bool = Field(
        True, description="Serve TLS. False only on a loopback address, for tests or behind a local proxy."
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain; read again when it changes. Empty: made.")
    tls_key: Path | None = Field(None, description="PEM private key of tls_cert.")
    tls_ca: Path | None = Field(None, description="PEM CA that goes into kubeconfigs when tls_cert is of a private CA.")
    wireguard_port: int = Field(51820, ge=0, le=65535, description="UDP port of WireGuard; 0 takes a free one.")
    wireguard_endpoints: Words = Field(
        (), description="host:port,... where edges send UDP. Empty: host of public_url, wireguard_port."
    )
    pool: IPv4Network = Field(IPv4Network("100.96.0.0/11"), description="Pool of the tenants' default subnets.")
    pool6: IPv6Network | None = Field(None, description="ULA /48 of the tenants' IPv6 subnets. Empty: made at random.")
    mtu: int = Field(1420, ge=1280, le=9000, description="Greatest inner packet that edges are told.")
    keepalive: int = Field(25, ge=1, le=65535, description="Persistent keepalive that new clusters get, in seconds.")
    heartbeat: int = Field(5, ge=1, le=20, description="Seconds between an edge's heartbeats.")
    chart: str = Field("oci://ghcr.io/daalu/charts/daalu-edge", description="Chart of the printed command.")
    edge_image: str = Field(
        f"ghcr.io/daalu/daalu-edge:{hub_server.__version__}", description="Image of the edge, for the printed check."
    )
    releases: Path | None = Field(None, description="JSON file of known chart releases, for 'Available update'.")
    admin_email: str = Field("admin@localhost", description="First administrator, made on first start.")
    tenant: str = Field("default", description="Slug of the first tenant, made on first start.")
    trusted_proxies: Words = Field((), description="Addresses whose X-Forwarded-For is believed.")
    session_idle: float = Field(1800, gt=0, description="Seconds after which an idle browser session ends.")
    session_absolute: float = Field(43200, gt=0, description="Seconds after which any browser session ends.")
    kubeconfig_ttl: float = Field(8 * 3600, gt=0, le=30 * 86400, description="Life of a kubeconfig, in seconds.")
    kubectl_requests_per_user: int = Field(1024, ge=1, description="Requests of one user at once, on all clusters.")
    kubectl_requests_per_user_cluster: int = Field(512, ge=1, description="Requests of one user at one cluster.")
    kubectl_requests_per_cluster: int = Field(768, ge=1, description="Requests at one cluster, of all users.")
    kubectl_watches_per_user: int = Field(
        4096, ge=1, description="Watches and followed logs of one user at once, on all clusters; counted apart."
    )
    kubectl_watches_per_user_cluster: int = Field(768, ge=1, description="Watches of one user at one cluster.")
    kubectl_watches_per_cluster: int = Field(1024, ge=1, description="Watches at one cluster, of all users.")
    bootstrap_rate: int = Field(120, ge=1, description="Bootstrap requests a minute from one address.")
    bootstrap_id_rate: int = Field(120, ge=1, description="Bootstrap requests a minute with one token id.")
    webhook_allow: Networks = Field((), description="Networks of private addresses that webhooks may go to.")
    connections: int = Field(
        0, ge=0, description="HTTPS connections at once; 0: what the limit of descriptors allows, 10000 at most."
    )
    connections_per_source: int = Field(
        0,
        ge=0,
        description="Those of one IPv4 address or IPv6 /64, but for trusted_proxies; 0: a quarter.",
    )
    handshake_timeout: float = Field(10, gt=0, description="Seconds that a TLS handshake may take.")
    head_timeout: float = Field(15, gt=0, description="Seconds that the head of a request may take.")
    body_timeout: float = Field(30, gt=0, description="Seconds without any octet of a request's body that end it.")
    body_rate: float = Field(500, gt=0, description="Octets a second that a request's body must reach after that.")
    idle_timeout: float = Field(75, gt=0, description="Seconds that a connection may rest between two requests.")
    stall_timeout: float = Field(60, gt=0, description="Seconds after which who takes nothing of an answer is cut.")
    events_days: float = Field(90, gt=0, description="Days that events are kept.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level of a log line.")
    drain: float = Field(10, ge=0, description="Seconds that open requests may take to end after SIGTERM.")

    @field_validator("database")
    @classmethod
    def _check_database(cls, value: str) -> str:
        if not value:
            return value
        scheme, separator, path = value.partition("://")
        if scheme != "sqlite" or not separator:
            kind = f"{scheme} is" if separator and scheme.isidentifier() else "other databases are"
            raise ValueError(f"{kind} not supported by this release: give sqlite:///PATH, or leave it empty")
        if not path.startswith("/") or path in ("/", "/:memory:"):
            raise ValueError("must be sqlite:///PATH, four slashes for a path from the root")
        return value

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not value:
            return value
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError("must be https://HOST[:PORT] and nothing else")
        return value.rstrip("/")

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host_and_port(value)
        return value

    @field_validator("wireguard_endpoints")
    @classmethod
    def _check_endpoints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in value:
            if not host_and_port(endpoint)[1]:
                raise ValueError(f"{endpoint!r} has no port that can be sent to")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Each in the spelling that the socket has for it; a network would never match."""
        try:
            return tuple(str(ip_address(one)) for one in value)
        except ValueError as problem:
            raise ValueError(f"must be addresses, as 10.0.0.7,fd00::7: {problem}") from None

    @field_validator("tenant")
    @classmethod
    def _check_tenant(cls, value: str) -> str:
        if not is_slug(value):
            raise ValueError("must be a slug: small letters, digits and hyphens")
        return value

    @field_validator("pool6")
    @classmethod
    def _check_pool6(cls, value: IPv6Network | None) -> IPv6Network | None:
        if value is not None and value.prefixlen > 48:
            raise ValueError("must be a /48 or larger: every tenant gets a /64 of it")
        return value

    @field_validator("admin_email")
    @classmethod
    def _check_email(cls, value: str) -> str:
        if "@" not in value:
            raise ValueError("must be an e-mail address")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key: give both or neither")
        if not self.tls:
            host = host_and_port(self.listen)[0]
            if host != "localhost" and not _is_loopback(host):
                raise ValueError(
                    "tls: false is for loopback addresses only; listen on 127.0.0.1, or give a certificate"
                )
        return self

    @property
    def database_file(self) -> Path:
        """The SQLite file, when `database` is empty."""
        return self.data / "hub.db"

    @property
    def public_host(self) -> str:
        """The name in public_url."""
        return urlsplit(self.public_url).hostname or "localhost"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(text: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    try:
        if not colon or not host or (":" in host and host[0] != "["):
            raise ValueError
        return host.strip("[]"), digits("port", port, 0, 65535)
    except (ValueError, ForeignError):
        raise ValueError(f"{text!r} is not HOST:PORT (IPv6 in brackets)") from None


def load(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Put the settings together; flags win over the environment, which wins over the file.

    Raises:
        SettingsError: something is wrong, unknown or unreadable.
    """
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}
    config = flags.get("config") or environment.get(ENVIRONMENT_PREFIX + "CONFIG")
    if config:
        try:
            values |= (document := tomllib.loads(Path(config).read_text()))
        except (OSError, ValueError) as problem:
            raise SettingsError(f"config ({config}): {problem}") from None
        origins |= dict.fromkeys(document, f"file {config}")
    _refuse_unknown(environment)
    for name in Settings.model_fields:
        if (text := environment.get(variable := ENVIRONMENT_PREFIX + name.upper())) is not None:
            values[name], origins[name] = text, variable
        if flags.get(name) is not None:
            values[name], origins[name] = flags[name], "--" + name.replace("_", "-")
    for name, info in Settings.model_fields.items():
        if values.get(name) == "" and info.default is None:
            values[name] = None
    try:
        return Settings(**values)
    except ValidationError as problem:
        raise SettingsError("\n".join(_sentence(error, origins) for error in problem.errors())) from None


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """Refuse a variable that looks like a setting and is none: whoever gave it believes that it holds."""
    for variable in sorted(environment):
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or name == "CONFIG" or _OF_KUBERNETES.fullmatch(name):
            continue
        if name.lower() not in Settings.model_fields or not name.isupper():
            near = _nearest(name.lower(), lambda known: ENVIRONMENT_PREFIX + known.upper())
            raise SettingsError(f"{variable} (environment): there is no such setting{near}; see daalu-hub settings")


def _nearest(name: str, spelled: Callable[[str], str] = str) -> str:
    near = difflib.get_close_matches(name, Settings.model_fields, 1)
    return f", did you mean {spelled(near[0])}?" if near else ""


def _sentence(error: Any, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0]) if error["loc"] else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    if error["type"] == "extra_forbidden":
        return (
            f"{name} ({origins.get(name, 'given')}): there is no such setting{_nearest(name)}; see daalu-hub settings"
        )
    if name == "database":  # its address may hold a password
        return f"{name} ({origins.get(name, 'default')}): {message}"
    return f"{name} ({origins.get(name, 'default')}): {message}; got {error['input']!r}"


def table() -> str:
    """The documentation: one line of Markdown for each setting."""
    lines = ["| setting | flag | environment | default | what |", "|---|---|---|---|---|"]
    for name, info in Settings.model_fields.items():
        default = info.default
        shown = "" if default in (None, "", ()) else str(default).lower() if isinstance(default, bool) else str(default)
        lines.append(
            f"| `{name}` | `--{name.replace('_', '-')}` | `{ENVIRONMENT_PREFIX}{name.upper()}` "
            f"| {f'`{shown}`' if shown else '-'} | {info.description} |"
        )
    return "\n".join(lines)
