"""python -m cerebellum_command: the command `cerebellum`."""

from . import main

main()
