"""Text encoders: from a text to a vector."""
