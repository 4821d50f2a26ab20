"""Who asks: passwords, cookies, tokens, and the middleware that turns them into an `Actor`.

For pages: `request.state.actor` is an Actor or None. Unsafe methods of a signed-in browser must carry the actor's
`csrf` as form field `csrf` or header `X-CSRF-Token`; `web.site` and `api` refuse them else, before a handler runs.
Sign-in: `signed_in = await services.accounts.sign_in(...)`, then `cookies.set_session(response, signed_in.cookie)`.
"""
