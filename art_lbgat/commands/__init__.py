"""The subcommands of ``art-lbgat``, one file each."""
