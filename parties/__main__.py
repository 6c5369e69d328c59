"""`python -m parties` is `concordat`."""

from parties.cli import main

main()
