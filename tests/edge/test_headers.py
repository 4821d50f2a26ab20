"""Which fields pass between hub and API server, and which paths."""

from __future__ import annotations

import pytest

from edge_agent.headers import (
    Refused,
    answer_fields,
    check_target,
    framing_of,
    is_proxied,
    request_fields,
    why_private,
)


def names(fields: list[tuple[bytes, bytes]]) -> set[bytes]:
    return {name for name, _ in fields}


def test_caching_and_encoding_pass_both_ways() -> None:
    """Without them a list of pods is fifty times as large, and discovery is read anew at each command."""
    asked = {
        b"accept",
        b"accept-encoding",
        b"if-none-match",
        b"if-modified-since",
        b"cache-control",
        b"content-encoding",
    }
    assert names(request_fields([(name, b"x") for name in asked])) == asked
    given = {b"content-encoding", b"etag", b"vary", b"expires", b"last-modified", b"cache-control", b"date", b"warning"}
    assert names(answer_fields([(name, b"x") for name in given])) == given


@pytest.mark.parametrize("of", [request_fields, answer_fields])
def test_what_connection_names_was_meant_for_the_last_hop_only(of: object) -> None:
    """RFC 9110 section 7.6.1: in any spelling and any of several fields."""
    fields = [
        (b"connection", b"close,Content-Type , x"),
        (b"content-type", b"a/b"),
        (b"connection", b"cache-CONTROL"),
        (b"cache-control", b"no-cache"),
        (b"content-encoding", b"gzip"),
    ]
    assert of(fields) == [(b"content-encoding", b"gzip")]  # type: ignore[operator]


def test_no_hop_by_hop_or_identity_field_passes() -> None:
    fields = [
        (name, b"x")
        for name in (
            b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"proxy-authorization", b"cookie",
            b"proxy-connection", b"authorization", b"x-remote-user", b"impersonate-user", b"x-forwarded-for",
            b"location", b"set-cookie", b"www-authenticate", b"server",
        )
    ]  # fmt: skip
    assert request_fields(fields) == []
    assert answer_fields(fields) == []


@pytest.mark.parametrize("name", ["r%C3%B4le", "%E5%90%8D", "a%3Ab", "system%3Anode", "%F0%9F%9A%80"])
def test_a_name_may_have_any_letters(name: str) -> None:
    """What can be created must be readable and removable: names of roles are not bound to ASCII."""
    check_target(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}?x=1".encode())


@pytest.mark.parametrize(
    "name", ["a%00", "a%0Ab", "%C2%85", "%FF", "%C3", "%ED%A0%80", "%7F", "..", "%2e%2e", "a%2Fb", "%5c"]
)
def test_a_name_may_not_be_two_things(name: str) -> None:
    with pytest.raises(Refused):
        check_target(f"/api/v1/namespaces/{name}/pods".encode())


def test_a_refusal_of_secrets_says_what_to_ask_instead() -> None:
    """`helm list -A` asks for Secrets of all namespaces, without a word of them."""
    reason = why_private(b"GET", b"/api/v1/secrets?labelSelector=owner%3Dhelm", "daalu-edge", "config")
    assert "Secrets of all namespaces" in reason
    assert "helm list" in reason


def test_who_speaks_for_a_user_or_upgrades_is_refused_in_words() -> None:
    for name, word in ((b"daalu-identity", "impersonation"), (b"upgrade", "streaming")):
        with pytest.raises(Refused, match=word):
            request_fields([(b"accept", b"a/b"), (name, b"x")])


def test_values_are_printable_and_bounded() -> None:
    [(name, value)] = request_fields([(b"user-agent", b"a\tb\x00\x7f\xff~ " + b"x" * 5000)])
    assert name == b"user-agent"
    assert value == b"a?b???~ " + b"x" * (4096 - 8)


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([], []),
        ([(b"content-type", b"a/b")], []),
        ([(b"content-length", b"12"), (b"accept", b"a/b")], [(b"content-length", b"12")]),
        ([(b"transfer-encoding", b"chunked")], [(b"transfer-encoding", b"chunked")]),
        ([(b"content-length", b"5"), (b"transfer-encoding", b"Chunked")], [(b"transfer-encoding", b"chunked")]),
    ],
)
def test_the_length_of_a_body_is_said_anew(
    fields: list[tuple[bytes, bytes]], framing: list[tuple[bytes, bytes]]
) -> None:
    assert framing_of(fields) == framing


@pytest.mark.parametrize(
    "target",
    [
        "", "api", "*", "http://x/api", "/a b", "/\u00e9", "/a//b", "//", "/./a", "/a/../b", "/a/..", "/%2e%2E/a",
        "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a\\b", "/a#b", "/a?x#b", "/a%09b",
    ],
)  # fmt: skip
def test_a_target_that_may_mean_two_things_is_refused(target: str) -> None:
    with pytest.raises(Refused):
        check_target(target.encode("latin-1"))


@pytest.mark.parametrize("target", ["/", "/api", "/api/", "/api/v1/pods?limit=5&x=%2F..//", "/a...b/.c/d..", "/a%20b"])
def test_a_plain_target_is_not(target: str) -> None:
    check_target(target.encode())


@pytest.mark.parametrize(
    ("target", "proxied"),
    [
        ("/api/v1/namespaces/a/services/b/proxy/x", True),
        ("/api/v1/nodes/n/pr%6fxy/", True),
        ("/api/v1/namespaces/a/services/proxy2", False),
        ("/api/v1/namespaces/a/pods/b?x=/proxy/", False),
    ],
)
def test_an_application_behind_the_api_server_is_told_by_its_path(target: str, proxied: bool) -> None:
    assert is_proxied(target.encode()) is proxied


HERE = "/api/v1/namespaces/ours"


@pytest.mark.parametrize(
    ("method", "target", "word"),
    [
        ("GET", "/api/v1/secrets", "Secrets of all namespaces"),
        ("GET", "/api/v1/watch/secrets/", "Secrets of all namespaces"),
        ("GET", "/api/v1/secrets/key", "Secrets of all namespaces"),
        ("GET", f"{HERE}/secrets", "Secrets of the namespace ours"),
        ("HEAD", f"{HERE}/secrets/key?x=1", "Secrets of the namespace ours"),
        ("GET", "/api/v1/namespaces/%6furs/secr%65ts", "Secrets of the namespace ours"),
        ("GET", "/api/v1/watch/namespaces/ours/secrets/key", "Secrets of the namespace ours"),
        ("DELETE", f"{HERE}/secrets", "Secrets of the namespace ours"),
        ("PATCH", f"{HERE}/configmaps/config", "ConfigMap config"),
        ("PUT", f"{HERE}/configmaps/config/status", "ConfigMap config"),
        ("DELETE", f"{HERE}/configmaps", "ConfigMap config"),
        ("POST", f"{HERE}/configmaps/", "ConfigMap config"),
        ("GET", f"{HERE}/configmaps/config", ""),
        ("HEAD", f"{HERE}/configmaps", ""),
        ("PATCH", f"{HERE}/configmaps/another", ""),
        ("DELETE", f"{HERE}/pods/config", ""),
        ("GET", "/api/v1/namespaces/theirs/secrets/key", ""),
        ("GET", "/api/v1/namespaces", ""),
        ("GET", "/apis/example.com/v1/secrets", ""),
        ("GET", "/api/v2/secrets", ""),
        ("PATCH", "/api/v1/namespaces/theirs/configmaps/config", ""),
    ],
)
def test_what_the_tunnel_lives_on_is_neither_shown_nor_changed(method: str, target: str, word: str) -> None:
    reason = why_private(method.encode(), target.encode(), "ours", "config")
    assert word in reason
    assert bool(reason) is bool(word)
