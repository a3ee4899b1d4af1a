"""The command line. `main.main` runs one command."""
