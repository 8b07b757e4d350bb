"""Greedy evaluation with standard errors and a paired test."""
