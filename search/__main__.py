"""`python -m search` is the command `podium`."""

from search.cli import main

main()
