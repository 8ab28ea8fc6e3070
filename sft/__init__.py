"""Programs that train taggers."""
