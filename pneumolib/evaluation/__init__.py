"""Evaluation: arrays in, numbers and figures out."""
