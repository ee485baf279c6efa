"""The weights of one copy of the model."""
