"""Networks, and the ways to run them. Importing this package loads nothing heavy."""
