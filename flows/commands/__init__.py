"""One file per subcommand; each imports what it needs when it runs."""
