"""`auth can-i`: what the account may do with which the panel asks."""

from __future__ import annotations

from hub_server.domain import kubectl
from hub_server.domain.kubectl import cell
from hub_server.domain.panel import LineRefused
from hub_server.panel.line import Line

__all__ = ["run"]

_API = "authorization.k8s.io/v1"


def run(line: Line) -> int:
    """Run it."""
    if line.command.is_set("list"):
        return _list(line)
    words, flags = line.command.words, line.command.flags
    if not 2 <= len(words) <= 3:
        raise LineRefused("auth can-i VERB RESOURCE [NAME]")
    kind, _, name = words[1].partition("/")
    if kind.startswith("/") or words[1].startswith("/"):
        raise LineRefused("only resources can be asked about")
    attributes: dict[str, str] = {"verb": words[0], "name": name or (words[2] if len(words) == 3 else "")}
    if kind == "*":
        attributes |= {"resource": "*", "group": "*"}
    else:
        resource = kubectl.find_resource(kind) or line.resource(kind)
        attributes |= {"resource": resource.plural, "group": resource.group}
    attributes |= {"namespace": line.namespace, "subresource": flags.get("subresource", "")}
    spec = {"resourceAttributes": {key: value for key, value in attributes.items() if value}}
    review = {"apiVersion": _API, "kind": "SelfSubjectAccessReview", "spec": spec}
    answer = line.ask(f"/apis/{_API}/selfsubjectaccessreviews", review=review)
    is_allowed = answer.truth("status", "allowed") is True
    if not line.command.is_set("quiet"):
        reason = answer.text("status", "reason") or ""
        line.print(("yes" if is_allowed else "no") + (f" - {reason}" if reason else "") + "\n")
    return 0 if is_allowed else 1


def _list(line: Line) -> int:
    spec = {"namespace": line.namespace or "default"}
    review = {"apiVersion": _API, "kind": "SelfSubjectRulesReview", "spec": spec}
    answer = line.ask(f"/apis/{_API}/selfsubjectrulesreviews", review=review)
    found = []
    for rule in answer.items("status", "resourceRules"):
        names, verbs = _brackets(rule.texts("resourceNames")), _brackets(rule.texts("verbs"))
        for group in rule.texts("apiGroups") or ("",):
            for one in rule.texts("resources"):
                found.append((group, one, [f"{one}.{group}" if group else one, "[]", names, verbs]))
    # As kubectl sorts them: the core first, and what is no resource last.
    rows = [row for *_, row in sorted(found)]
    for rule in answer.items("status", "nonResourceRules"):
        verbs = _brackets(rule.texts("verbs"))
        rows += [["", f"[{url}]", "[]", verbs] for url in rule.texts("nonResourceURLs")]
    head = ["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]
    line.print_rows([[cell(one) for one in row] for row in [head, *rows]])
    return 0


def _brackets(values: tuple[str, ...]) -> str:
    return f"[{' '.join(values)}]"
