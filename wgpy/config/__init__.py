"""What an interface and its peers shall be: frozen values, checked once, as INI and as JSON both ways.

    values      prefixes, endpoints, addresses: what one value of a file may be
    interface   InterfaceConfig and PeerConfig
    file        the INI form, that of `wg` and `wg-quick`; a file is written back without loss, comments included
    jsonform    the JSON form
    doubts      what `wgpy check` says: everything wrong, and everything that will surprise

Source: wg(8) and wg-quick(8).
"""

from wgpy.config.doubts import Diagnosis, check
from wgpy.config.interface import InterfaceConfig, PeerConfig
from wgpy.config.values import Address, Endpoint, Prefix

__all__ = ["Address", "Diagnosis", "Endpoint", "InterfaceConfig", "PeerConfig", "Prefix", "check"]
