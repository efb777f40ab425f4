"""What is trained: the settings of a run and the objects in which runs differ."""
