"""Podium: a hyperparameter search that ends in a decision."""
