"""`python -m hub_server` is `daalu-hub`."""

from hub_server.cli import main

main()
