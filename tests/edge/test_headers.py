"""Which fields pass between hub and API server, and which paths."""

from __future__ import annotations

import pytest

from edge_agent.headers import Refused, answer_fields, check_target, request_fields, why_private


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
        (b"connection", b"close, Content-Type"),
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
