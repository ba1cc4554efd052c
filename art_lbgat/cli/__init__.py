"""The command line ``art-lbgat``: a file per family of commands; nothing here imports torch before a command runs."""
