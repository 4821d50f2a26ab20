"""Who may do what: the table of product.md section 7, as data.

A right belongs to a tenant; services ask `allows(role, right)`. Which things a person may see is decided before that,
by tenant.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """A member's role in one tenant."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    AUDITOR = "auditor"


class Right(StrEnum):
    """What a handler may ask for."""

    SEE = "see"  # rows, nodes, events, alerts
    MANAGE = "manage"  # invite, rename, delete, RBAC, subnets, members, channels
    PANEL = "panel"  # the "kubectl run" panel
    KUBECONFIG = "kubeconfig"  # own kubeconfigs, and requests made with them
    STREAM = "stream"  # exec, attach, port-forward, proxy subresources
    AUDIT = "audit"  # read and export the audit log


_EVERYTHING = frozenset(Right)
RIGHTS: dict[Role, frozenset[Right]] = {
    Role.ADMIN: _EVERYTHING,
    Role.OPERATOR: frozenset({Right.SEE, Right.PANEL, Right.KUBECONFIG}),
    Role.VIEWER: frozenset({Right.SEE}),
    Role.AUDITOR: frozenset({Right.SEE, Right.AUDIT}),
}


def allows(role: Role, right: Right, grants: frozenset[str] = frozenset()) -> bool:
    """Say whether a role has a right; `stream` may be granted to an operator beside the table."""
    return right in RIGHTS[role] or (right is Right.STREAM and role is Role.OPERATOR and Right.STREAM in grants)
