"""`python -m edge_agent` is `daalu-edge`."""

from edge_agent.cli import main

main()
