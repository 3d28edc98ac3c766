"""Synthetic collections with complete ground truth: templates deformed, painted and photographed."""
