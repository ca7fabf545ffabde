"""What models learn from: samples, their mixture, and batches of them."""
