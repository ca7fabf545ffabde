"""Training: recipes as values, and one loop that carries any of them through its stages."""
