"""Kubernetes requests whose path names no cluster: they get a hint that kubectl prints, instead of a page.

`kubectl proxy` without `--append-server-path` drops the path of the kubeconfig's server, `kubectl -s https://hub` never
had it. Neither path nor answer tells anything about any cluster.
"""

from __future__ import annotations

import re
from typing import Final

from hub_server.exchange import Answering, Receive, Scope, Send

__all__ = ["is_misplaced", "serve_hint"]

# What kubectl, client-go and helm ask an API server for; none of it is an address of the hub's own.
_KUBERNETES: Final = re.compile(
    r"/(api|apis|openapi|version|swagger\.json|swaggerapi|livez|\.well-known/openid-configuration|openid/v1/jwks)(/.*)?"
)


def is_misplaced(scope: Scope) -> bool:
    """Whether this is a request to an API server that came to the hub itself; a browser is shown a page instead."""
    if scope["type"] != "http" or not _KUBERNETES.fullmatch(scope["path"]):
        return False
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return b"text/html" not in accepted


async def serve_hint(scope: Scope, receive: Receive, send: Send, public_url: str) -> None:
    """Say where the clusters are."""
    text = (
        "this is a Daalu hub, and the path names no cluster: the server of a kubeconfig is "
        f"{public_url}/k8s/clusters/<id>; with `kubectl proxy`, add --append-server-path"
    )
    answer, is_head = Answering(send, "http.response"), scope["method"] == "HEAD"
    if scope["path"] in ("/api", "/apis") and _is_client_go(scope):
        # Where client-go looks for the kinds of a cluster it reads no `Status`, and shows a text only for a 403.
        await answer.refuse(403, "Forbidden", text, is_head=is_head, as_text=True)
    else:
        await answer.refuse(404, "NotFound", text, is_head=is_head)


def _is_client_go(scope: Scope) -> bool:
    agents = [value.lower() for name, value in scope["headers"] if name == b"user-agent"]
    return any(agent.startswith((b"kubectl/", b"helm/", b"k9s/")) or b"kubernetes/" in agent for agent in agents)
