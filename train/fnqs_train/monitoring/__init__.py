"""What a run tells of itself: its record, its progress and when it has converged."""
