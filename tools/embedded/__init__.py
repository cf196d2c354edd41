"""How the model that ships is made: `python -m tools.embedded.build`."""
