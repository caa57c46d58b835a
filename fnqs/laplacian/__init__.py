"""The forward Laplacian: values that carry their gradient and Laplacian along."""
