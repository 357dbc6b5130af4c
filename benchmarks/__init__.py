"""Figures that README and docs quote, measured side by side in one run: `make bench`."""
