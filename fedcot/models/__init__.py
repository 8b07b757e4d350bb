"""How a model is found, loaded and, for the built-in pair, trained."""
