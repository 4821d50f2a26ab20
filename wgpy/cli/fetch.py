"""`wgpy fetch`: get a URL through the tunnel, with nothing but the standard library around it."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from wgpy.cli.conf import add_conf, read_conf
from wgpy.cli.parser import add_command
from wgpy.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from wgpy.adapters.sync import Tunnel
    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

# As curl(1) with --fail: the server said no.
_SERVER_SAID_NO = 22


def add_to(commands: Commands[Parser]) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "fetch",
        _fetch,
        "get a URL through the tunnel",
        examples="  wgpy fetch office.conf http://intranet.example/\n"
        "  wgpy fetch -i -H 'Accept: application/json' office.conf https://api.internal/health\n"
        "  wgpy fetch -o image.iso office.conf http://10.0.0.1/image.iso\n",
    )
    add_conf(parser)
    parser.add_argument("url", metavar="URL", help="http:// or https://; the name is resolved in the tunnel")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the body here and not to standard output")
    parser.add_argument("-i", "--include", action="store_true", help="show status and header fields too")
    parser.add_argument("-H", "--header", metavar="FIELD", action="append", default=[], help="send `Name: value` too")
    parser.add_argument("-m", "--max-time", metavar="SECONDS", type=float, help="for each step: connecting, reading")
    parser.add_argument("-k", "--insecure", action="store_true", help="do not check the certificate")


def _fetch(options: argparse.Namespace) -> int:
    from wgpy.adapters.sync import open_tunnel

    request = _request(options)
    with open_tunnel(read_conf(options.conf)) as tunnel, contextlib.ExitStack() as stack:
        opener = _opener(tunnel, is_checked=not options.insecure)
        code = 0
        try:
            answer = stack.enter_context(opener.open(request, timeout=options.max_time))
        except urllib.error.HTTPError as refusal:
            answer = stack.enter_context(refusal)
            code = _SERVER_SAID_NO
            print(f"wgpy: {options.url}: {refusal.code} {refusal.reason}", file=sys.stderr)
        except urllib.error.URLError as problem:
            reason = problem.reason
            text = getattr(reason, "strerror", None) or reason
            raise OSError(getattr(reason, "errno", None), f"{options.url}: {text}") from None
        out = stack.enter_context(open(options.output, "wb")) if options.output else sys.stdout.buffer
        if options.include:
            head = f"HTTP/1.1 {answer.status} {answer.reason}\n{answer.headers}"
            sys.stdout.buffer.write(head.encode())
        shutil.copyfileobj(answer, out)
        # Octets that Content-Length promised; `http.client` keeps quiet about those that never came.
        missing = getattr(answer.fp if isinstance(answer, urllib.error.HTTPError) else answer, "length", None)
        if missing:
            raise OSError(None, f"{options.url}: the answer ended {missing} octets early")
    return code


def _request(options: argparse.Namespace) -> urllib.request.Request:
    try:
        request = urllib.request.Request(options.url)
    except ValueError as problem:
        raise ConfigError(f"{problem}; expected http://... or https://...") from None
    if request.type not in ("http", "https") or not request.host:
        raise ConfigError(f"expected http://... or https://..., got {options.url!r}")
    request.add_header("User-Agent", "wgpy")
    for field in options.header:
        name, colon, value = field.partition(":")
        if not colon:
            raise ConfigError(f"expected `Name: value`, got {field!r}", field="--header")
        request.add_header(name.strip(), value.strip())
    return request


def _opener(tunnel: Tunnel, *, is_checked: bool) -> urllib.request.OpenerDirector:
    """What follows redirects and all that, over connections of the tunnel; proxies of the environment are not asked."""
    context = ssl.create_default_context()
    if not is_checked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    def connect(connection: http.client.HTTPConnection) -> None:
        timeout: Any = connection.timeout
        connection.sock = tunnel.create_connection(
            (connection.host, connection.port), timeout if isinstance(timeout, int | float) else None
        )

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            connect(self)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            connect(self)
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        PlainHandler(),
        SecureHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener
