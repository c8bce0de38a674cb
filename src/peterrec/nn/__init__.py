"""Networks: tensors in, tensors out. Knows no files and no tasks."""
