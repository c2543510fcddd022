"""`python -m colabkit`: the command line."""

from colabkit.cli import main

raise SystemExit(main())
