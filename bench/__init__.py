"""Measurements. ``python -m bench --help`` lists them."""
