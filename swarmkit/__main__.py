"""`python -m swarmkit`."""

from swarmkit.cli import main

main()
