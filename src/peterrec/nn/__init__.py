"""Networks: from tensors to tensors, without files and tasks."""
