"""`python -m persona_cli`, the same as `persona`."""

from persona_cli.cli.main import main

main()
