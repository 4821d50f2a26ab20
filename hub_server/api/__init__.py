"""The JSON API: the same services as the pages, for programs. Handlers parse, ask and answer; no rule is in here."""

from hub_server.api.routes import routes

__all__ = ["routes"]
