"""One page, and a card, that tell everything about runs."""
