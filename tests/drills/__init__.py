"""What is tried by `make drill` only, as it takes minutes or needs much."""
