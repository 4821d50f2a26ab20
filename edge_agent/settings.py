"""Everything that can be set, in one table, read once into one frozen value.

A flag wins over the environment, the environment over the default. The chart sets the environment; people who try the
agent by hand use flags. `daalu-edge COMMAND --help` prints the table, and a test holds the chart against it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from edge_agent.foreign import ForeignError, digits

__all__ = ["SETTINGS", "Setting", "SettingError", "Settings", "add_flags", "read_settings"]

_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"


class SettingError(ValueError):
    """A setting is wrong; the message names it and says what would be right."""


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Attributes:
        flag: without the dashes; the field of `Settings` is the same with underscores.
        variable: of the environment.
        default: as text.
        help: for people.
        least: of a number.
        most: of a number.
        choices: of a word.
    """

    flag: str
    variable: str
    default: str
    help: str
    least: int | None = None
    most: int | None = None
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """Name in `Settings`."""
        return self.flag.replace("-", "_")


SETTINGS: Final = (
    Setting("hub-url", "DAALU_HUB_URL", "", "where the hub is, https://..."),
    Setting("hub-ca", "DAALU_HUB_CA_FILE", "", "file of certificate authorities for the hub, beside the system's"),
    Setting("hub-ca-pem", "DAALU_HUB_CA_PEM", "", "the same as text, for `doctor` where there is no file"),
    Setting("https-proxy", "HTTPS_PROXY", "", "HTTP proxy on the way to the hub's HTTPS, http://name:password@host:port"),
    Setting("no-proxy", "NO_PROXY", "", "names, addresses and networks, with commas, that need no proxy"),
    Setting("token-file", "DAALU_TOKEN_FILE", "", "file with the bootstrap token"),
    Setting("deadline", "DAALU_DEADLINE", "3440", "seconds after which the bootstrap gives up", 1, 86400),
    Setting("state-dir", "DAALU_STATE_DIR", "", "keep key and configuration in this folder, not in objects"),
    Setting("namespace", "DAALU_NAMESPACE", "daalu-edge", "of our own objects"),
    Setting("secret", "DAALU_SECRET", "daalu-edge-key", "Secret with the private key"),
    Setting("config-map", "DAALU_CONFIG_MAP", "daalu-edge-config", "ConfigMap with the public configuration"),
    Setting("secret-dir", "DAALU_SECRET_DIR", "", "where the Secret is mounted"),
    Setting("config-dir", "DAALU_CONFIG_DIR", "", "where the ConfigMap is mounted"),
    Setting("read-namespaces", "DAALU_READ_NAMESPACES", "", "read in these namespaces only, with commas, for `doctor`"),
    Setting("deployment", "DAALU_DEPLOYMENT", "", "our own Deployment, looked at when we are stopped"),
    Setting("job", "DAALU_JOB", "", "name of the bootstrap Job, for the hub's texts"),
    Setting("mode", "DAALU_WG_MODE", "userspace", "how packets leave the tunnel", choices=("userspace", "tun")),
    Setting("interface", "DAALU_WG_INTERFACE", "daalu0", "name of the interface in tun mode"),
    Setting("keepalive", "DAALU_WG_KEEPALIVE", "25", "seconds between keepalives; the hub may ask for fewer", 1, 65535),
    Setting("heartbeat", "DAALU_WG_HEARTBEAT", "5", "seconds between heartbeats", 1, 20),
    Setting("mtu", "DAALU_WG_MTU", "0", "inner MTU, 1280 to 9000; 0 to find it", 0, 9000),
    Setting("api-server", "DAALU_API_SERVER", "", "URL of the API server; empty: the cluster we run in"),
    Setting("api-ca", "DAALU_API_CA_FILE", f"{_ACCOUNT}/ca.crt", "certificate authority of the API server"),
    Setting("api-token", "DAALU_API_TOKEN_FILE", f"{_ACCOUNT}/token", "file with our token for it, read again"),
    Setting("api-cert", "DAALU_API_CERT_FILE", "", "client certificate for it"),
    Setting("api-key", "DAALU_API_KEY_FILE", "", "key of the client certificate"),
    Setting("health-host", "DAALU_HEALTH_HOST", "", "address of the probes' port; empty: all"),
    Setting("health-port", "DAALU_HEALTH_PORT", "8081", "port for probes and metrics", 0, 65535),
    Setting("proxy-port", "DAALU_PROXY_PORT", "7443", "port for the hub's requests, inside the tunnel", 1, 65535),
    Setting("cluster-identity", "DAALU_CLUSTER_IDENTITY", "true", "tell the hub the cluster's uid",
            choices=("true", "false")),
    Setting("service-account", "DAALU_SERVICE_ACCOUNT", "daalu-edge", "the account we run as, for the hub's texts"),
    Setting("selector", "DAALU_SELECTOR", "app.kubernetes.io/name=daalu-edge,app.kubernetes.io/component=edge",
            "labels of the edge pod, for `test`"),
    Setting("chart-version", "DAALU_CHART_VERSION", "", "version of the chart"),
    Setting("json", "DAALU_JSON", "false", "`doctor` and `test` print one JSON object per line",
            choices=("true", "false")),
    Setting("log-level", "DAALU_LOG_LEVEL", "info", "least important message to print",
            choices=("debug", "info", "warning", "error")),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was set; see the table above for each."""

    hub_url: str = ""
    hub_ca: str = ""
    hub_ca_pem: str = ""
    https_proxy: str = dataclasses.field(default="", repr=False)  # may hold a password
    no_proxy: str = ""
    token_file: str = ""
    deadline: int = 3440
    state_dir: str = ""
    namespace: str = "daalu-edge"
    secret: str = "daalu-edge-key"
    config_map: str = "daalu-edge-config"
    secret_dir: str = ""
    config_dir: str = ""
    read_namespaces: str = ""
    deployment: str = ""
    job: str = ""
    mode: str = "userspace"
    interface: str = "daalu0"
    keepalive: int = 25
    heartbeat: int = 5
    mtu: int = 0
    api_server: str = ""
    api_ca: str = f"{_ACCOUNT}/ca.crt"
    api_token: str = f"{_ACCOUNT}/token"
    api_cert: str = ""
    api_key: str = ""
    health_host: str = ""
    health_port: int = 8081
    proxy_port: int = 7443
    cluster_identity: bool = True
    service_account: str = "daalu-edge"
    selector: str = "app.kubernetes.io/name=daalu-edge,app.kubernetes.io/component=edge"
    chart_version: str = ""
    json: bool = False
    log_level: str = "info"

    @property
    def account_name(self) -> str:
        """As the API server knows us."""
        return f"system:serviceaccount:{self.namespace}:{self.service_account}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per row."""
    for row in SETTINGS:
        bounds = "" if row.least is None else f", {row.least} to {row.most}"
        words = "" if not row.choices else f", {' or '.join(row.choices)}"
        default = f"default {row.default}" if row.default else "no default"
        is_truth = row.choices == ("true", "false")
        parser.add_argument(
            f"--{row.flag}",
            metavar="VALUE",
            default=None,
            nargs="?" if is_truth else None,
            const="true" if is_truth else None,  # `--json` alone means yes
            help=f"{row.help} (${row.variable}, {default}{bounds}{words})",
        )


def read_settings(flags: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Settings:
    """Put flags, environment and defaults together.

    Raises:
        SettingError: the first that is wrong.
    """
    values: dict[str, Any] = {}
    for row in SETTINGS:
        flag = flags.get(row.field)
        # Proxies' variables are written in small letters, too.
        known = environment.get(row.variable) or environment.get(row.variable.lower())
        text = (row.default if known is None else known) if flag is None else flag
        values[row.field] = _checked(row, text if text or flag is not None else row.default)
    if not values["api_server"]:
        values["api_server"] = _in_cluster(environment)
    for name in ("hub_url", "api_server"):
        _check_url(name, values[name])
    if 0 < values["mtu"] < 1280:
        raise SettingError(f"--mtu ($DAALU_WG_MTU) must be 0 or from 1280 to 9000, got {values['mtu']}")
    return Settings(**values)


def _checked(row: Setting, text: str) -> str | int | bool:
    name = f"--{row.flag} (${row.variable})"
    if row.choices == ("true", "false"):
        if text not in row.choices:
            raise SettingError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    if row.choices and text not in row.choices:
        raise SettingError(f"{name} must be one of {', '.join(row.choices)}, got {text!r}")
    if row.least is None or row.most is None:
        return text
    try:
        return digits(name, text, row.least, row.most)
    except ForeignError:
        raise SettingError(f"{name} must be a number from {row.least} to {row.most}, got {text[:100]!r}") from None


def _in_cluster(environment: Mapping[str, str]) -> str:
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _check_url(name: str, url: str) -> None:
    if not url:
        return
    try:
        parts = urllib.parse.urlsplit(url)
        is_plain_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
        is_good = (parts.scheme == "https" or is_plain_here) and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, brackets that do not close
        parts, is_good = urllib.parse.urlsplit(""), None
    if not is_good or parts.query or parts.fragment:
        raise SettingError(f"--{name.replace('_', '-')} must be an https:// URL, got {url[:200]!r}")
