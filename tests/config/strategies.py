"""Configurations for hypothesis."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from tests.property.strategies import numeric_endpoints, ports, prefixes, preshared_keys, private_keys, public_keys
from wgpy.config import Endpoint, InterfaceConfig, PeerConfig

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

OTHER = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

words = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)

names = st.lists(words.map(lambda word: word.strip("-")), min_size=1, max_size=3).map(".".join)

endpoints = numeric_endpoints | st.builds(Endpoint, names, ports)

commands = st.text("abc ;|&%i='\"$", min_size=1, max_size=20).map(str.strip).filter(bool)

interfaces = st.integers(0, 32).flatmap(
    lambda length: st.integers(0, 2**32 - 1).map(lambda n: ipaddress.IPv4Interface((n, length)))
) | st.integers(0, 128).flatmap(
    lambda length: st.integers(0, 2**128 - 1).map(lambda n: ipaddress.IPv6Interface((n, length)))
)

servers = st.ip_addresses().map(str)

peers = st.builds(
    PeerConfig,
    public_keys,
    allowed_ips=st.lists(prefixes, max_size=3),
    endpoint=st.none() | endpoints,
    preshared_key=st.none() | preshared_keys,
    persistent_keepalive=st.integers(0, 65535),
)

configurations = st.builds(
    InterfaceConfig,
    st.none() | private_keys,
    listen_port=st.integers(0, 65535),
    fwmark=st.integers(0, 2**32 - 1),
    peers=st.lists(peers, max_size=3, unique_by=lambda peer: peer.public_key),
    addresses=st.lists(interfaces, max_size=2),
    dns=st.lists(servers, max_size=2),
    dns_search=st.lists(names, max_size=2),
    mtu=st.none() | st.integers(68, 65535),
    table=st.sampled_from(["auto", "off", "main", "51820"]),
    pre_up=st.lists(commands, max_size=1),
    post_up=st.lists(commands, max_size=2),
    pre_down=st.lists(commands, max_size=1),
    post_down=st.lists(commands, max_size=1),
    save_config=st.booleans(),
)
