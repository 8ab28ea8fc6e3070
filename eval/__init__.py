"""Programs that measure taggers."""
