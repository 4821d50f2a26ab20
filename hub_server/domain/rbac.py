"""What an edge may do in its cluster: presets, the difference between what is granted and wanted, and the patch for it.

Pure: rules in, words and YAML out. The hub never applies a patch; its owner does. Product design, section 12.

    PRESETS, custom rows -> Wish -> rules(wish) -> difference(granted, wanted), manifest(...), values(...)
                                     -> permissions(rules): what an access review asks for, one question each
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

READ: Final = ("get", "list", "watch")
# Objects that live in no namespace: words about them name none.
_CLUSTER_SCOPED: Final = frozenset({"nodes", "namespaces", "persistentvolumes", "clusterroles", "clusterrolebindings"})
_VERBS: Final = frozenset(
    {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
    | {"escalate", "bind", "impersonate", "use", "approve", "sign", "*"}
)
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RESOURCE: Final = re.compile(r"\*|[a-z]([-a-z0-9]*[a-z0-9])?(/(\*|[a-z]+))?")
_GROUP: Final = re.compile(r"|\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_OWNER_LABEL: Final = "app.kubernetes.io/managed-by"
_OWNER: Final = "daalu-hub"
_MAX_CUSTOM: Final = 50
_MAX_NAMESPACES: Final = 100

# What a custom row may open, and what to say about it.
_WARNINGS: Final = (
    ("*", "a star grants everything that exists and everything that will be added later"),
    ("secrets", "reading Secrets shows every password, token and private key in them to whoever may use this cluster"),
    ("escalate", "`escalate` lets the account give itself any right"),
    ("bind", "`bind` lets the account hand out roles that it does not have"),
    ("impersonate", "`impersonate` lets the account act as anybody, cluster administrators included"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as RBAC has it; `namespace` None means the whole cluster."""

    api_groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    namespace: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As Kubernetes writes it, without the namespace, which stands with the role."""
        return {"apiGroups": list(self.api_groups), "resources": list(self.resources), "verbs": list(self.verbs)}


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One question to an API server; also one thing that a rule grants."""

    namespace: str  # "" for all
    group: str
    resource: str  # with its subresource: pods/log
    verb: str


@dataclass(frozen=True, slots=True)
class Preset:
    """Rules that go together. Those of a preset with `needs_namespaces` hold in the namespaces that are chosen."""

    key: str
    title: str
    text: str
    rules: tuple[Rule, ...]
    needs_namespaces: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the difference: `+` is wanted and not granted, `-` granted and not wanted, a space both."""

    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person chose."""

    presets: tuple[str, ...]
    namespaces: tuple[str, ...] = ()
    custom: tuple[Rule, ...] = ()


class BadWish(ValueError):
    """The wish makes no sense; `field` names what."""

    def __init__(self, field: str, text: str) -> None:
        """Say what is wrong."""
        super().__init__(text)
        self.field = field


PRESETS: Final = (
    Preset(
        "default-read",
        "Default read",
        "What the chart grants: workloads, nodes, events and logs, for reading.",
        (
            Rule(("",), ("pods", "services", "nodes", "events"), READ),
            Rule(("events.k8s.io",), ("events",), READ),
            Rule(("apps",), ("deployments", "statefulsets", "daemonsets"), READ),
            Rule(("",), ("pods/log",), ("get",)),
        ),
    ),
    Preset(
        "wider-read",
        "Wider read",
        "Everything else that describes workloads, still without Secrets.",
        (
            Rule(
                ("",),
                ("namespaces", "configmaps", "endpoints", "persistentvolumes", "persistentvolumeclaims"),
                READ,
            ),
            Rule(("apps",), ("replicasets",), READ),
            Rule(("batch",), ("jobs", "cronjobs"), READ),
            Rule(("networking.k8s.io",), ("ingresses",), READ),
            Rule(("autoscaling",), ("horizontalpodautoscalers",), READ),
        ),
    ),
    Preset(
        "debugging",
        "Debugging",
        "Shells, attached terminals and forwarded ports in every pod: as good as the rights of those pods.",
        # A WebSocket upgrade is a GET, and newer API servers ask for create as well.
        (Rule(("",), ("pods/exec", "pods/attach", "pods/portforward"), ("get", "create")),),
    ),
    Preset(
        "write-proposals",
        "Write proposals",
        "Change and scale workloads in the namespaces that you name.",
        (
            Rule(
                ("apps",),
                ("deployments", "statefulsets", "daemonsets", "deployments/scale", "statefulsets/scale"),
                ("get", "patch", "update"),
            ),
        ),
        needs_namespaces=True,
    ),
)
_PRESETS: Final = {preset.key: preset for preset in PRESETS}
DEFAULT: Final = PRESETS[0]


def make_wish(presets: Sequence[str], namespaces: Sequence[str], custom: Sequence[Mapping[str, Any]]) -> Wish:
    """Check what came from a form or from the API.

    Args:
        presets: keys; the default is always part of it, since the chart grants it.
        namespaces: for presets that need them.
        custom: rows of `{apiGroups, resources, verbs, namespace?}`.

    Raises:
        BadWish: a name that cannot be, or a preset without its namespaces.
    """
    keys = dict.fromkeys([DEFAULT.key, *presets])
    if unknown := [key for key in keys if key not in _PRESETS]:
        raise BadWish("presets", f"there is no preset {unknown[0][:40]!r}: choose from {', '.join(_PRESETS)}")
    names = tuple(dict.fromkeys(namespaces))
    if len(names) > _MAX_NAMESPACES:
        raise BadWish("namespaces", f"at most {_MAX_NAMESPACES} namespaces")
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadWish("namespaces", f"{name[:70]!r} is no name of a namespace: a-z, 0-9 and dashes, at most 63")
    wants = [_PRESETS[key].title for key in keys if _PRESETS[key].needs_namespaces]
    if wants and not names:
        raise BadWish("namespaces", f"{wants[0]} needs at least one namespace")
    if len(custom) > _MAX_CUSTOM:
        raise BadWish("custom", f"at most {_MAX_CUSTOM} rows")
    return Wish(tuple(keys), names, tuple(_custom_rule(number, row) for number, row in enumerate(custom, 1)))


def _custom_rule(number: int, row: Mapping[str, Any]) -> Rule:
    found: list[tuple[str, ...]] = []
    for key, shape, what in (
        ("apiGroups", _GROUP, "API group"),
        ("resources", _RESOURCE, "resource"),
        ("verbs", None, "verb"),
    ):
        given = row.get(key)
        texts = tuple(given) if isinstance(given, list | tuple) else ()
        if not texts:
            raise BadWish("custom", f"row {number} needs at least one {what}")
        for text in texts:
            is_good = text in _VERBS if shape is None else isinstance(text, str) and shape.fullmatch(text)
            if not is_good:
                raise BadWish("custom", f"row {number}: {str(text)[:60]!r} is no {what}")
        found.append(texts)
    namespace = row.get("namespace") or None
    if namespace is not None and not (isinstance(namespace, str) and _NAME.fullmatch(namespace)):
        raise BadWish("custom", f"row {number}: {str(namespace)[:70]!r} is no name of a namespace")
    return Rule(found[0], found[1], found[2], namespace)


def rules(wish: Wish) -> tuple[Rule, ...]:
    """All rules of a wish, each once, the default's first."""
    found: dict[Rule, None] = {}
    for key in wish.presets:
        preset = _PRESETS[key]
        for rule in preset.rules:
            for namespace in wish.namespaces if preset.needs_namespaces else (None,):
                found[Rule(rule.api_groups, rule.resources, rule.verbs, namespace)] = None
    return tuple({**found, **dict.fromkeys(wish.custom)})


def extra_rules(wish: Wish) -> tuple[Rule, ...]:
    """Those that the chart does not grant by itself."""
    return tuple(rule for rule in rules(wish) if rule not in DEFAULT.rules)


def warnings(wish: Wish) -> tuple[str, ...]:
    """What to say before anybody applies the custom rows."""
    asked = {text for rule in wish.custom for text in (*rule.api_groups, *rule.resources, *rule.verbs)}
    names = {text.partition("/")[0] for text in asked} | {text.partition("/")[2] for text in asked}
    return tuple(text for what, text in _WARNINGS if what in names)


# --- in words --------------------------------------------------------------------------------------------------------


def permissions(wanted: Iterable[Rule]) -> tuple[Permission, ...]:
    """What the rules grant, one by one and each once: an access review answers for one at a time."""
    return tuple(
        dict.fromkeys(
            Permission(rule.namespace or "", group, resource, verb)
            for rule in wanted
            for group in rule.api_groups
            for resource in rule.resources
            for verb in rule.verbs
        )
    )


def sentences(granted: Iterable[Permission]) -> tuple[str, ...]:
    """Permissions in plain words, one line per resource: "read replicasets in all namespaces"."""
    return tuple(_sentence(key, verbs) for key, verbs in _by_resource(granted).items())


def sentence_of(permission: Permission) -> str:
    """One permission in plain words: "watch pods in all namespaces"."""
    return _sentence((permission.namespace, permission.group, permission.resource), [permission.verb])


def difference(granted: Iterable[Permission], wanted: Iterable[Permission]) -> tuple[Line, ...]:
    """What would change, in plain words: additions first, then what would go, then what stays."""
    has, wants = set(granted), set(wanted)
    parts = (("+", wants - has), ("-", has - wants), (" ", has & wants))
    return tuple(Line(sign, text) for sign, part in parts for text in sentences(sorted(part)))


def _by_resource(granted: Iterable[Permission]) -> dict[tuple[str, str, str], list[str]]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for one in granted:
        found.setdefault((one.namespace, one.group, one.resource), []).append(one.verb)
    return found


def _sentence(key: tuple[str, str, str], verbs: Sequence[str]) -> str:
    namespace, group, resource = key
    what = "everything" if resource == "*" else resource
    if group and group not in ("apps", "batch") and resource != "*":
        what += f" ({'every group' if group == '*' else group})"
    if resource.partition("/")[0] in _CLUSTER_SCOPED:
        where = ""
    else:
        where = f" in {namespace}" if namespace else " in all namespaces"
    return f"{_verbs_in_words(verbs)} {what}{where}"


def _verbs_in_words(verbs: Sequence[str]) -> str:
    left = set(verbs)
    if "*" in left:
        return "do anything with"
    words: list[str] = []
    if left >= set(READ):
        words.append("read")
        left -= set(READ)
    order = ["get", "list", "watch", "create", "update", "patch", "delete"]
    words += sorted(left, key=lambda verb: (order.index(verb) if verb in order else len(order), verb))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


# --- to apply --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """The ServiceAccount that an edge runs as."""

    namespace: str = "daalu-edge"
    name: str = "daalu-edge"

    @classmethod
    def parse(cls, text: str) -> Account:
        """From `system:serviceaccount:NAMESPACE:NAME`; anything else an edge may say means the chart's default."""
        parts = text.split(":")
        if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"] and all(map(_NAME.fullmatch, parts[2:])):
            return cls(parts[2], parts[3])
        return cls()

    @property
    def role(self) -> str:
        """The name of the roles made for it."""
        return f"{self.name}-extra"

    @property
    def labels(self) -> dict[str, str]:
        """What finds these roles again."""
        return {"app.kubernetes.io/name": "daalu-edge", "app.kubernetes.io/instance": self.name, _OWNER_LABEL: _OWNER}


def manifest(wish: Wish, account: Account) -> str:
    """YAML for `kubectl apply -f -`: one role and its binding for the cluster, one of each per namespace."""
    return "---\n".join(_yaml(document) for document in documents(wish, account))


def documents(wish: Wish, account: Account) -> list[dict[str, Any]]:
    """The objects of `manifest`; none when the chart grants everything already."""
    by_namespace: dict[str | None, list[Rule]] = {}
    for rule in extra_rules(wish):
        by_namespace.setdefault(rule.namespace, []).append(rule)
    found: list[dict[str, Any]] = []
    for namespace, its_rules in by_namespace.items():
        prefix = "" if namespace else "Cluster"
        metadata: dict[str, Any] = {"name": account.role, "labels": account.labels}
        if namespace:
            metadata["namespace"] = namespace
        group = "rbac.authorization.k8s.io"
        found.append(
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{prefix}Role",
                "metadata": metadata,
                "rules": [rule.as_json() for rule in its_rules],
            }
        )
        found.append(
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{prefix}RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": f"{prefix}Role", "name": account.role},
                "subjects": [{"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}],
            }
        )
    return found


def values(wish: Wish) -> str:
    """The same as values of the chart, for GitOps: `rbac.extraRules`, each with its namespace if it has one."""
    extra = [
        {**rule.as_json(), **({"namespace": rule.namespace} if rule.namespace else {})} for rule in extra_rules(wish)
    ]
    return _yaml({"rbac": {"extraRules": extra}})


def apply_command(wish: Wish, account: Account) -> str:
    """One command for a shell; empty when there is nothing to apply."""
    text = manifest(wish, account)
    return f"kubectl apply -f - <<'EOF'\n{text}EOF\n" if text else ""


def narrow_command(account: Account) -> str:
    """Back to what the chart grants: removes every role that was made by a patch."""
    selector = ",".join(f"{key}={value}" for key, value in account.labels.items())
    return (
        f"kubectl delete clusterrolebinding,clusterrole -l {selector}\n"
        f"kubectl delete rolebinding,role --all-namespaces -l {selector}\n"
    )


def _yaml(value: Any, indent: int = 0) -> str:
    """Block style; strings are quoted as JSON does it, which YAML reads alike. Lists of strings stay on one line."""
    pad = " " * indent
    if isinstance(value, dict):
        lines = []
        for key, one in value.items():
            if isinstance(one, dict) or (isinstance(one, list) and one and isinstance(one[0], dict)):
                lines.append(f"{pad}{key}:\n{_yaml(one, indent + 2)}")
            else:
                lines.append(f"{pad}{key}: {_scalar(one)}\n")
        return "".join(lines)
    return "".join(f"{pad}- {_yaml(one, indent + 2).lstrip()}" for one in value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][-A-Za-z0-9./]*", value) and value not in _WORDS_OF_YAML:
        return value
    return json.dumps(value)


# Words that YAML 1.1 reads as something else than text.
_WORDS_OF_YAML: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
