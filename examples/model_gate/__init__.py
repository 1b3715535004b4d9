"""A gate that the model owns: it decides whether a person is needed, asks, and judges the answer itself."""
