"""A62, the part of the rules: targets, headers of requests and answers, what a request is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import headers as edge_headers
from hub_server.domain.headers import (
    ANSWER_FIELDS,
    REQUEST_FIELDS,
    Impersonating,
    Malformed,
    answer_untrusted,
    content_length_untrusted,
    describe,
    request_untrusted,
    status_document,
    target_untrusted,
    upgrade_untrusted,
)

GOOD = [
    (b"Host", b"hub"),
    (b"Accept", b"application/json"),
    (b"User-Agent", b"kubectl/v1.37"),
    (b"Authorization", b"x"),
]
FORBIDDEN = [
    "Authorization", "Cookie", "X-Forwarded-For", "X-Forwarded-Proto", "X-Remote-User", "X-Remote-Group",
    "X-Remote-Extra-Scopes", "Proxy-Authorization", "Daalu-Identity", "Daalu-Request-Id", "Host", "TE", "Trailer",
    "X-Real-Ip", "Forwarded", "Keep-Alive", "Proxy-Connection", "Upgrade",
]  # fmt: skip
IMPERSONATING = ["Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes"]


def forms(name: str) -> list[bytes]:
    return [form.encode() for form in (name, name.lower(), name.upper(), name.replace("-", "_"), name.lower().title())]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_header_never_passes_in_any_form(name: str) -> None:
    for form in forms(name):
        fields = request_untrusted([(b"Accept", b"a/b"), (form, b"evil")])
        assert fields == [(b"accept", b"a/b")]


@pytest.mark.parametrize("name", IMPERSONATING)
def test_impersonation_is_refused_and_not_just_dropped(name: str) -> None:
    for form in forms(name):
        with pytest.raises(Impersonating):
            request_untrusted([*GOOD, (form, b"system:masters")])
        with pytest.raises(Impersonating):
            request_untrusted([*GOOD, (b"Connection", form), (form, b"system:masters")])


def test_what_connection_names_is_removed_before_ours_is_added() -> None:
    """capsule-proxy #188: `Connection: Impersonate-User` made a proxy strip its own header."""
    fields = request_untrusted([(b"Connection", b"close, Accept , kubectl-session"), *GOOD, (b"Kubectl-Session", b"1")])
    assert [name for name, _ in fields] == [b"user-agent"]


def test_a_user_agent_is_sanitised_and_values_are_bounded() -> None:
    fields = dict(request_untrusted([(b"User-Agent", b"kube\xffctl" + b"x" * 9999), (b"Accept", b"y" * 9999)]))
    assert fields[b"user-agent"].startswith(b"kubectlxxx")
    assert len(fields[b"user-agent"]) == 256
    assert len(fields[b"accept"]) == 4096


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"1"), (b"content-length", b"2")],
        [(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"identity")],
        [(b"Content-Type", b"a/b"), (b"content-type", b"c/d")],
        [(b"Bad Name", b"x")],
        [(b"Accept", b"a\r\nInjected: yes")],
        [(b"Accept", b"a\x00b")],
        [(b"", b"x")],
    ],
)
def test_what_means_two_things_is_malformed(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Malformed):
        request_untrusted(headers)


def test_content_length_is_a_number_or_malformed() -> None:
    assert content_length_untrusted([(b"Content-Length", b"17")]) == 17
    assert content_length_untrusted(GOOD) is None
    for wrong in (b"+1", b"-1", b"1 ", b"0x1", b"", b"9" * 30, b"\xb2"):
        with pytest.raises(Malformed):
            content_length_untrusted([(b"Content-Length", wrong)])


@pytest.mark.parametrize(
    "path",
    [
        b"/api/v1/../secrets", b"/api/v1/..", b"/api/v1/%2e%2e/x", b"/api/v1/%2E./x", b"/./api", b"/api//v1",
        b"/api/v1%2fpods", b"/api/v1%2Fpods", b"/api/v1/%252e%252e/x", b"/api/v1/%252fx", b"/api/%00", b"/api/\x00",
        b"/api/\x7f", b"/api/%0d%0aX:%20y", b"/api\\v1", b"/api%5cv1", b"/api/v1#x", b"/api/v1?x", b"api/v1", b"",
        b"http://evil/api", b"//evil/api", b"evil:443", b"*", b"/api/%zz", b"/api/%2", b"/api/ v1", b"/api/\xc3\xa9",
        b"/" + b"a" * 20_000,
    ],
)  # fmt: skip
def test_a_path_with_two_meanings_is_malformed(path: bytes) -> None:
    with pytest.raises(Malformed):
        target_untrusted(path, b"")


@pytest.mark.parametrize("query", [b"a=%00", b"a b", b"a=\x01", b"a#b", b"a=%0d%0a", b"\xff"])
def test_a_query_with_control_characters_is_malformed(query: bytes) -> None:
    with pytest.raises(Malformed):
        target_untrusted(b"/api", query)


def test_good_targets_pass_octet_by_octet() -> None:
    for path, query in [
        (b"/", b""),
        (b"/api/v1/pods", b"limit=500"),
        (b"/api/v1/namespaces/kube-system/pods/a.b-c/log", b"follow=true&container=x"),
        (b"/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", b""),
        (b"/api/v1/nodes", b"labelSelector=a%20in%20%28b%29&fieldSelector=metadata.name%3Dx"),
        (b"/api/v1/pods/", b""),
    ]:
        assert target_untrusted(path, query) == (path + (b"?" + query if query else b"")).decode()


@given(st.binary(max_size=60), st.binary(max_size=30))
def test_any_octets_give_a_plain_target_or_malformed(path: bytes, query: bytes) -> None:
    try:
        target = target_untrusted(path, query)
    except Malformed:
        return
    assert target.startswith("/")
    assert target.isascii()
    assert not any(ord(one) <= 32 or ord(one) == 127 for one in target)


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=30)), max_size=8))
def test_any_headers_give_only_the_allow_list(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        fields = request_untrusted(headers)
    except (Malformed, Impersonating):
        return
    assert {name for name, _ in fields} <= REQUEST_FIELDS
    assert {name for name, _ in answer_untrusted(headers)} <= ANSWER_FIELDS | {b"x-content-type-options"}


def test_answers_keep_the_allow_list_and_every_warning() -> None:
    kept = answer_untrusted(
        [
            (b"Content-Type", b"application/json"), (b"Warning", b'299 - "a"'), (b"Warning", b'299 - "b"'),
            (b"Set-Cookie", b"x=1"), (b"Location", b"http://evil"), (b"Content-Security-Policy", b"none"),
            (b"Content-Type", b"text/html"), (b"Connection", b"date"), (b"Date", b"now"), (b"Audit-Id", b"a\x00b"),
        ]
    )  # fmt: skip
    assert kept == [
        (b"content-type", b"application/json"), (b"warning", b'299 - "a"'), (b"warning", b'299 - "b"'),
        (b"x-content-type-options", b"nosniff"),
    ]  # fmt: skip


def test_upgrades_are_told_apart() -> None:
    def kind(*headers: tuple[bytes, bytes]) -> str:
        return upgrade_untrusted(headers)

    assert kind((b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1")) == "spdy"
    assert kind((b"connection", b"keep-alive, upgrade"), (b"upgrade", b"WebSocket")) == "websocket"
    assert kind((b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")) == "other"
    assert kind((b"Upgrade", b"websocket")) == "none"
    assert kind() == "none"


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/api/v1/pods", ("list", "pods", "", "", False, False)),
        ("GET", "/api/v1/pods?watch=1", ("watch", "pods", "", "", False, True)),
        ("GET", "/api/v1/pods?watch=false", ("list", "pods", "", "", False, False)),
        ("GET", "/api/v1/watch/pods", ("watch", "pods", "", "", False, True)),
        ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true", ("get", "pods/log", "a", "b", False, True)),
        ("GET", "/api/v1/namespaces/a/pods/b/exec?command=sh", ("get", "pods/exec", "a", "b", True, False)),
        ("POST", "/api/v1/namespaces/a/pods/b/portforward", ("create", "pods/portforward", "a", "b", True, False)),
        ("GET", "/api/v1/nodes/n/proxy/metrics", ("get", "nodes/proxy", "", "n", True, False)),
        ("GET", "/api/v1/namespaces/a/services/s:80/proxy", ("get", "services/proxy", "a", "s:80", True, False)),
        ("GET", "/api/v1/namespaces/a/pods/b/%70roxy/x", ("get", "pods/proxy", "a", "b", True, False)),
        ("GET", "/api/v1/proxy/nodes/n", ("proxy", "proxy", "", "", True, False)),
        ("GET", "/api/v1/namespaces/a", ("get", "namespaces", "a", "a", False, False)),
        ("PUT", "/api/v1/namespaces/a/finalize", ("update", "namespaces/finalize", "a", "a", False, False)),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            ("deletecollection", "deployments", "a", "", False, False),
        ),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            ("patch", "deployments/scale", "a", "d", False, False),
        ),
        ("GET", "/version", ("non-resource", "", "", "", False, False)),
        ("GET", "/apis/apps/v1", ("non-resource", "", "", "", False, False)),
    ],
)
def test_a_request_is_described_in_kubernetes_words(method: str, target: str, expected: tuple[object, ...]) -> None:
    kube = describe(method, target)
    assert (kube.verb, kube.resource, kube.namespace, kube.name, kube.needs_stream, kube.is_long) == expected


def test_a_refusal_is_a_status() -> None:
    status = json.loads(status_document(403, "Forbidden", "no", cause="X"))
    assert (status["kind"], status["code"], status["reason"], status["message"]) == ("Status", 403, "Forbidden", "no")
    assert status["details"]["causes"][0]["reason"] == "X"


# --- the same policy at both ends -----------------------------------------------------------------------------------


def test_hub_and_edge_pass_on_the_same_fields() -> None:
    assert edge_headers.REQUEST_FIELDS == REQUEST_FIELDS
    assert edge_headers.ANSWER_FIELDS == ANSWER_FIELDS


@pytest.mark.parametrize("name", ["caf%C3%A9", "%D0%B8%D0%BC%D1%8F", "%E5%90%8D", "system%3Anode", "a%20b"])
def test_names_of_every_script_mean_the_same_at_both_ends(name: str) -> None:
    """A name that can be created can be read and deleted, too."""
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}".encode()
    target = target_untrusted(path, b"")
    assert target.encode() == path
    edge_headers.check_target(target.encode())


@pytest.mark.parametrize("name", ["%FF", "%C3", "%00", "%2e%2e", "a%2fb"])
def test_what_one_end_refuses_in_a_name_the_other_refuses_as_well(name: str) -> None:
    path = f"/api/v1/namespaces/{name}".encode()
    with pytest.raises(Malformed):
        target_untrusted(path, b"")
    with pytest.raises(edge_headers.Refused):
        edge_headers.check_target(path)


def test_fields_that_may_repeat_are_all_kept_and_others_once() -> None:
    fields = [(b"Vary", b"Accept"), (b"Vary", b"Accept-Encoding"), (b"Warning", b"a"), (b"Warning", b"b")]
    kept = answer_untrusted([*fields, (b"ETag", b"1"), (b"ETag", b"2")])
    assert [value for name, value in kept if name in (b"vary", b"warning")] == [
        b"Accept", b"Accept-Encoding", b"a", b"b",
    ]  # fmt: skip
    assert [value for name, value in kept if name == b"etag"] == [b"1"]
