"""Backbones and bundles on disk: safetensors and JSON, fingerprints, atomic writes."""
