"""Small servers for the far end of a tunnel, run as `python -m tests.e2e.servers KIND ADDRESS ...`.

web ADDRESS PORT            answers each GET with `hello from ADDRESS to CLIENT`; POST with the length of what came
dns ADDRESS NAME=ADDRESS..  answers A and AAAA questions for these names, NXDOMAIN for others; logs each question
echo ADDRESS PORT           TCP: sends back what came once the client has said that it is done; UDP: at once
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(f"hello from {self.server.server_address[0]} to {self.client_address[0]}\n")  # type: ignore[str-bytes-safe]

    def do_POST(self) -> None:
        self.answer(f"{len(self.rfile.read(int(self.headers['Content-Length'])))} octets\n")

    def answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


class Web6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def web(address: str, port: str) -> None:
    kind = Web6 if ":" in address else ThreadingHTTPServer
    kind((address, int(port)), Web).serve_forever()


def dns(address: str, *entries: str) -> None:
    table: dict[str, list[ipaddress.IPv4Address | ipaddress.IPv6Address]] = {}
    for entry in entries:
        name, _, target = entry.partition("=")
        table.setdefault(name.lower(), []).append(ipaddress.ip_address(target))
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, client = server.recvfrom(4096)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        (kind,) = struct.unpack_from("!H", query, at + 1)
        question = query[12 : at + 5]
        name = ".".join(labels)
        print(f"asked for {name.lower()}", flush=True)
        known = table.get(name.lower())
        answers = [one for one in known or [] if (one.version == 4) == (kind == 1)] if kind in (1, 28) else []
        body = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(one.packed)) + one.packed for one in answers
        )
        flags = 0x8180 if known else 0x8183
        server.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0) + question + body, client)


def echo(address: str, port: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    datagrams.bind((address, int(port)))

    def answer_datagrams() -> None:
        while True:
            data, client = datagrams.recvfrom(65535)
            datagrams.sendto(data, client)

    def answer_stream(connection: socket.socket) -> None:
        with connection:
            received = b"".join(iter(lambda: connection.recv(65536), b""))
            connection.sendall(received)

    threading.Thread(target=answer_datagrams, daemon=True).start()
    with socket.create_server((address, int(port)), family=family) as listener:
        while True:
            threading.Thread(target=answer_stream, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    {"web": web, "dns": dns, "echo": echo}[sys.argv[1]](*sys.argv[2:])
