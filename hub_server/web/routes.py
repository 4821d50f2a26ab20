"""Every address of the pages, and its handler. Changes are POST forms; everything else can be read again."""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from hub_server.services import Services
from hub_server.web import alerts, channels, cluster, clusters, profile, rbac, render, sign_in, wizard
from hub_server.web.site import Handler, handle

READ: tuple[tuple[str, Handler], ...] = (
    ("/", clusters.home),
    ("/t/{tenant}", clusters.home),
    ("/t/{tenant}/clusters", clusters.show),
    ("/t/{tenant}/clusters/live", clusters.stream),
    ("/t/{tenant}/clusters/add", wizard.show_form),
    ("/t/{tenant}/alerts", alerts.show),
    ("/t/{tenant}/alerts/live", alerts.stream),
    ("/t/{tenant}/settings", rbac.settings),
    ("/t/{tenant}/settings/clusters", rbac.settings),
    ("/t/{tenant}/settings/channels", channels.show),
    ("/t/{tenant}/settings/clusters/{cluster_id}/rbac", rbac.show),
    ("/clusters/{cluster_id}", cluster.overview),
    ("/clusters/{cluster_id}/live", cluster.stream),
    ("/clusters/{cluster_id}/join", wizard.show_join),
    ("/clusters/{cluster_id}/join/live", wizard.stream),
    ("/clusters/{cluster_id}/nodes", cluster.nodes),
    ("/clusters/{cluster_id}/kubectl", cluster.kubectl),
    ("/clusters/{cluster_id}/rbac", rbac.show),
    ("/clusters/{cluster_id}/events", cluster.events),
    ("/clusters/{cluster_id}/settings", cluster.settings),
    ("/clusters/{cluster_id}/kubeconfigs", cluster.kubeconfigs),
    ("/profile", profile.show),
)
ACT: tuple[tuple[str, Handler], ...] = (
    ("/sign-out", sign_in.sign_out),
    ("/t/{tenant}/clusters/add", wizard.create),
    ("/t/{tenant}/alerts/{alert_id}/acknowledge", alerts.acknowledge),
    ("/t/{tenant}/settings/channels", channels.create),
    ("/t/{tenant}/settings/channels/{channel_id}/test", channels.test),
    ("/t/{tenant}/settings/channels/{channel_id}/delete", channels.delete),
    ("/clusters/{cluster_id}/invite", wizard.regenerate),
    ("/clusters/{cluster_id}/invite/revoke", wizard.revoke),
    ("/clusters/{cluster_id}/kubectl", cluster.run_kubectl),
    ("/clusters/{cluster_id}/rbac", rbac.make),
    ("/clusters/{cluster_id}/rbac/check", rbac.check),
    ("/clusters/{cluster_id}/settings", cluster.save_settings),
    ("/clusters/{cluster_id}/accept", cluster.accept_identity),
    ("/clusters/{cluster_id}/delete", cluster.delete),
    ("/clusters/{cluster_id}/kubeconfigs", cluster.issue_kubeconfig),
    ("/clusters/{cluster_id}/kubeconfigs/{kubeconfig_id}/revoke", cluster.revoke_kubeconfig),
    ("/profile/password", profile.change_password),
    ("/profile/sessions/{session_id}/end", profile.end_session),
)


class _Kept(StaticFiles):
    """Files whose address carries their fingerprint: browsers may keep them for ever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file, always whole: they are small, and a part that is asked for wrongly needs no refusal."""
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        answer = await super().get_response(path, scope)
        if answer.status_code == 200:
            answer.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer


def routes(services: Services) -> list[BaseRoute]:
    """The pages over these services."""
    return [
        Mount("/static", _Kept(directory=render.STATIC), name="static"),
        Route("/sign-in", sign_in.show(services), methods=["GET"]),
        Route("/sign-in", sign_in.submit(services), methods=["POST"]),
        *(Route(path, handle(services, handler), methods=["GET"]) for path, handler in READ),
        *(Route(path, handle(services, handler), methods=["POST"]) for path, handler in ACT),
    ]
