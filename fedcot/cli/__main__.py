"""`python -m fedcot.cli`."""

from fedcot.cli import main

main()
