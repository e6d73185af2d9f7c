"""Predictions and scores of a network on whole volumes."""
