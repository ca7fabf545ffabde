"""Reading answers: what a model's words say, by the rules of the official scorers. Words in, words out; no files, no models."""
