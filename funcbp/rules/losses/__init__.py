"""Losses: one value per example (or per element, where optax has it so); never reduced."""
