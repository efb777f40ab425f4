"""From action chunks to the actions that a robot executes, one per control step."""
