"""From a model's name to a model that is ready to stream, and what its layers are like."""
