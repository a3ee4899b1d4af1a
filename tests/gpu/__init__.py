"""What is to be run once on a machine with a GPU: `python -m tests.gpu`."""
