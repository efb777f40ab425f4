"""What the numbers of an action mean: columns, rotations, motion. Needs numpy only."""
