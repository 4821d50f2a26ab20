"""`wgpy fetch`: get a URL through the tunnel, with nothing but the standard library around it."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from wgpy.cli.conf import add_conf, read_conf
from wgpy.cli.parser import add_command, printable, time_limit
from wgpy.errors import ConfigError
from wgpy.foreign import quoted

if TYPE_CHECKING:
    import argparse

    from wgpy.adapters.sync import Tunnel
    from wgpy.cli.parser import Commands, Parser

__all__ = ["add_to"]

# As curl(1) with --fail: the server said no.
_SERVER_SAID_NO = 22
# RFC 9110, 5.6.2: a token.
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


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
        mixes=True,
    )
    add_conf(parser)
    parser.add_argument("url", metavar="URL", help="http:// or https://; the name is resolved in the tunnel")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the body here and not to standard output")
    parser.add_argument("-i", "--include", action="store_true", help="show status and header fields too")
    parser.add_argument("-H", "--header", metavar="FIELD", action="append", default=[], help="send `Name: value` too")
    parser.add_argument(
        "-m", "--max-time", metavar="SECONDS", type=time_limit, help="for each step: connecting, reading"
    )
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
            if refusal.closed:  # a redirect to something else than a page
                raise _failure(options.url, " ".join(refusal.reason.split())) from None
            answer = stack.enter_context(refusal)
            code = _SERVER_SAID_NO
            print(f"wgpy: {printable(f'{options.url}: {refusal.code} {refusal.reason}')}", file=sys.stderr)
        except urllib.error.URLError as problem:
            raise _failure(options.url, problem.reason) from None
        except (http.client.HTTPException, ValueError) as problem:
            raise _failure(options.url, problem) from None
        out = stack.enter_context(open(options.output, "wb")) if options.output else sys.stdout.buffer
        if options.include:
            head = f"HTTP/1.1 {answer.status} {answer.reason}\n{answer.headers}"
            sys.stdout.buffer.write(head.encode())
        try:
            shutil.copyfileobj(answer, out)
        except (http.client.HTTPException, ValueError) as problem:
            raise _failure(options.url, problem) from None
        # Octets that Content-Length promised; `http.client` keeps quiet about those that never came.
        missing = getattr(answer.fp if isinstance(answer, urllib.error.HTTPError) else answer, "length", None)
        if missing:
            raise OSError(None, f"{options.url}: the answer ended {missing} octets early")
    return code


def _failure(url: str, cause: object) -> OSError:
    """What a server did wrong, as one line."""
    if isinstance(cause, http.client.IncompleteRead):
        text: object = f"the answer ended early, after {len(cause.partial)} octets of its last part"
    elif isinstance(cause, http.client.InvalidURL):
        text = f"it leads to a place that is none: {cause}"
    elif isinstance(cause, http.client.HTTPException | ValueError) and not isinstance(cause, OSError):
        text = f"the answer is not HTTP ({type(cause).__name__})"
    else:
        text = getattr(cause, "strerror", None) or cause
    return OSError(getattr(cause, "errno", None), f"{url}: {text}")


def _checked_url(url: str) -> str:
    """A URL that can be asked for as it is.

    Raises:
        ConfigError: it is none; with what to write instead.
    """
    if not url.isascii():
        raise ConfigError("a URL is ASCII: write the name in its xn-- form, and the rest with % escapes", field="URL")
    if not url.isprintable() or " " in url:
        raise ConfigError("a URL holds no blanks: write %20", field="URL")
    try:
        parts = urllib.parse.urlsplit(url)
        host, has_user, port = parts.hostname, parts.username is not None, parts.port
    except ValueError as problem:
        raise ConfigError(f"{problem}", field="URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"expected http://... or https://..., got {quoted(url)}", field="URL")
    if has_user:
        raise ConfigError("a user has no place in it: give -H 'Authorization: Basic ...'", field="URL")
    if port == 0:
        raise ConfigError("0 is no port to connect to", field="URL")
    return url.partition("#")[0]


def _request(options: argparse.Namespace) -> urllib.request.Request:
    request = urllib.request.Request(_checked_url(options.url))
    request.add_header("User-Agent", "wgpy")
    for field in options.header:
        name, colon, value = (part.strip() for part in field.partition(":"))
        # What stands in a field may be secret, and is not shown.
        if not colon or not _FIELD_NAME.fullmatch(name):
            raise ConfigError("expected `Name: value`, with the name of a header field", field="--header")
        if not value.isprintable() or not _is_latin1(value):
            raise ConfigError(f"the value of {quoted(name)} has characters that no header can hold", field="--header")
        request.add_header(name, value)
    return request


def _is_latin1(text: str) -> bool:
    return all(ord(character) < 256 for character in text)


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
