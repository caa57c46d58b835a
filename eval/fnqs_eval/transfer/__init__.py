"""What a model knows of configurations it never saw: zero-shot, fine-tuned, from scratch."""
