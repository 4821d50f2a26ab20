"""The RBAC patch generator: A24 (the patch itself), A43 (the rule that a refusal names)."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hub_server.domain import rbac
from hub_server.domain.rbac import Account, BadWish, Line, Permission, Rule

ACCOUNT = Account.parse("system:serviceaccount:daalu-edge:daalu-edge")


def test_a24_the_default_needs_no_patch() -> None:
    wish = rbac.make_wish([], [], [])
    assert rbac.manifest(wish, ACCOUNT) == ""
    assert rbac.apply_command(wish, ACCOUNT) == ""
    assert yaml.safe_load(rbac.values(wish)) == {"rbac": {"extraRules": []}}


def test_a24_both_forms_hold_the_same_rules_and_name_the_account() -> None:
    row = {"apiGroups": ["example.com"], "resources": ["things/status"], "verbs": ["get"], "namespace": "shop"}
    wish = rbac.make_wish(["wider-read", "debugging", "write-proposals"], ["shop", "web"], [row])
    found = list(yaml.safe_load_all(rbac.manifest(wish, ACCOUNT)))
    assert [(one["kind"], one["metadata"].get("namespace")) for one in found] == [
        ("ClusterRole", None), ("ClusterRoleBinding", None),
        ("Role", "shop"), ("RoleBinding", "shop"), ("Role", "web"), ("RoleBinding", "web"),
    ]  # fmt: skip
    for role, binding in zip(found[::2], found[1::2], strict=True):
        assert binding["roleRef"] == {
            "apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": role["metadata"]["name"],
        }  # fmt: skip
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "daalu-edge", "namespace": "daalu-edge"}]
    from_manifest = [
        {**rule, **({"namespace": role["metadata"]["namespace"]} if role["kind"] == "Role" else {})}
        for role in found[::2]
        for rule in role["rules"]
    ]
    from_values = yaml.safe_load(rbac.values(wish))["rbac"]["extraRules"]
    assert sorted(map(str, from_manifest)) == sorted(map(str, from_values))
    assert rbac.apply_command(wish, ACCOUNT).startswith("kubectl apply -f - <<'EOF'\napiVersion: ")


def test_a24_the_narrowing_command_finds_what_the_patch_made() -> None:
    wish = rbac.make_wish(["debugging"], [], [])
    [role, _] = yaml.safe_load_all(rbac.manifest(wish, ACCOUNT))
    selector = rbac.narrow_command(ACCOUNT).split(" -l ")[1].split("\n")[0]
    assert dict(pair.split("=") for pair in selector.split(",")) == role["metadata"]["labels"]


def test_a24_dangerous_rights_stand_in_custom_rows_only_and_are_warned_of() -> None:
    dangerous = {"secrets", "*", "escalate", "bind", "impersonate"}
    for preset in rbac.PRESETS:
        for rule in preset.rules:
            assert not dangerous & {*rule.api_groups, *rule.resources, *rule.verbs}
    assert rbac.warnings(rbac.make_wish([one.key for one in rbac.PRESETS], ["a"], [])) == ()
    for what in dangerous:
        resources, verbs = (["pods"], [what]) if what in ("escalate", "bind", "impersonate") else ([what], ["get"])
        wish = rbac.make_wish([], [], [{"apiGroups": [""], "resources": resources, "verbs": verbs}])
        assert len(rbac.warnings(wish)) == 1, what


def test_a24_the_difference_is_in_plain_words() -> None:
    granted = rbac.permissions(rbac.rules(rbac.make_wish([], [], [])))
    wanted = rbac.permissions(
        [
            *rbac.rules(rbac.make_wish(["write-proposals"], ["shop"], [])),
            Rule(("apps",), ("replicasets",), rbac.READ),
            Rule(("",), ("nodes",), ("patch",)),
        ]
    )
    lines = rbac.difference([*granted, Permission("", "", "configmaps", "get")], wanted)
    assert Line("+", "read replicasets in all namespaces") in lines
    assert Line("+", "patch nodes") in lines
    assert Line("+", "get, update and patch deployments/scale in shop") in lines
    assert Line("-", "get configmaps in all namespaces") in lines
    assert Line(" ", "read nodes") in lines
    assert Line(" ", "read events (events.k8s.io) in all namespaces") in lines
    assert [line.sign for line in lines] == sorted((line.sign for line in lines), key="+- ".index)


@pytest.mark.parametrize(
    ("presets", "namespaces", "custom", "field"),
    [
        (["root"], [], [], "presets"),
        (["write-proposals"], [], [], "namespaces"),
        (["write-proposals"], ["Shop"], [], "namespaces"),
        (["write-proposals"], ["a" * 64], [], "namespaces"),
        ([], [], [{"apiGroups": [""], "resources": [], "verbs": ["get"]}], "custom"),
        ([], [], [{"apiGroups": [""], "resources": ["pods\n- x"], "verbs": ["get"]}], "custom"),
        ([], [], [{"apiGroups": [""], "resources": ["pods"], "verbs": ["read"]}], "custom"),
        ([], [], [{"apiGroups": ["A b"], "resources": ["pods"], "verbs": ["get"]}], "custom"),
        ([], [], [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "namespace": "../x"}], "custom"),
        ([], [], [{"apiGroups": "core", "resources": ["pods"], "verbs": ["get"]}], "custom"),
    ],
)
def test_a_wish_that_makes_no_sense_names_its_field(
    presets: list[str], namespaces: list[str], custom: list[dict[str, Any]], field: str
) -> None:
    with pytest.raises(BadWish) as refused:
        rbac.make_wish(presets, namespaces, custom)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "text", ["", "admin", "system:serviceaccount:x", "system:serviceaccount:a:b\nc", "system:serviceaccount:A:b"]
)
def test_an_account_that_an_edge_made_up_is_not_believed(text: str) -> None:
    assert Account.parse(text) == Account("daalu-edge", "daalu-edge")


NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)


@given(
    st.sets(st.sampled_from([one.key for one in rbac.PRESETS])), st.lists(NAMES, min_size=1, max_size=3, unique=True)
)
def test_yaml_says_to_others_what_was_meant(presets: set[str], namespaces: list[str]) -> None:
    wish = rbac.make_wish(sorted(presets), namespaces, [])
    assert list(yaml.safe_load_all(rbac.manifest(wish, ACCOUNT) or "---")) == (rbac.documents(wish, ACCOUNT) or [None])
