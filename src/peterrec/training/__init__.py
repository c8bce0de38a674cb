"""Pre-training and adaptation, through Lightning."""
