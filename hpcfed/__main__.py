"""python -m hpcfed: the same as the hpcfed command, for launchers that start Python modules."""

from .cli.main import main

if __name__ == "__main__":
    main()
