"""Un-cook: an adapter that is too strong or over-fitted, its block groups scaled until loss and drift are lowest."""
