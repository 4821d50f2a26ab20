"""The operator's pages: HTML made on the server, htmx for what is live, the same services as the API.

A handler parses, asks a service and answers; there is no rule in here, and nothing here touches `store` or `wire`.
`routes(services)` is what `app` mounts at `/`. Everything that a service hands over is untrusted text: the templates
escape without exception, and no answer leaves without the policy in `render.HEADERS`.

    routes.py     every address of the pages and its handler
    site.py       one request: who asks, forms with their CSRF field, refusals turned into pages
    render.py     templates, the words for times and sizes, headers
    charts.py     the geometry of timeline and charts
    live.py       the event streams behind the pages that stay open
    sign_in.py, clusters.py, wizard.py, cluster.py, rbac.py, alerts.py, profile.py    the handlers, one file per page
"""

from hub_server.web.routes import routes

__all__ = ["routes"]
