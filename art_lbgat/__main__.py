"""``python -m art_lbgat``, and ``torchrun -m art_lbgat``: the command line."""

from art_lbgat.cli.main import main

if __name__ == "__main__":
    main()
