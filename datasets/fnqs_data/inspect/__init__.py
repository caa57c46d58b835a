"""A look at data: pictures, pair distances and near-duplicates."""
