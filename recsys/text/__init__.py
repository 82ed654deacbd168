"""Items as sentences: their attributes as tokens, and encoders that read them."""
