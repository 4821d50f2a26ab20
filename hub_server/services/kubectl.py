"""kubectl: the panel, kubeconfigs, and who may send a request through the tunnel."""

from __future__ import annotations

from hub_server.services.views import Actor, IssuedKubeconfig, KubeconfigView, PanelAnswer


class Kubectl:
    """kubectl: the panel, kubeconfigs, and who may send a request through the tunnel."""

    async def run_panel(self, actor: Actor, cluster_id: str, line: str) -> PanelAnswer:
        """Run what was typed after `kubectl`. Raises Forbidden, EdgeUnreachable; a refused line is an answer."""
        raise NotImplementedError

    async def kubeconfigs(self, actor: Actor, cluster_id: str) -> tuple[KubeconfigView, ...]:
        """Own kubeconfigs; an admin sees all."""
        raise NotImplementedError

    async def issue_kubeconfig(
        self, actor: Actor, cluster_id: str, *, ttl: float | None = None, stream: bool = False
    ) -> IssuedKubeconfig:
        """Make a kubeconfig. Needs re-authentication."""
        raise NotImplementedError

    async def revoke_kubeconfig(self, actor: Actor, cluster_id: str, kubeconfig_id: str) -> None:
        """Dead at once."""
        raise NotImplementedError
