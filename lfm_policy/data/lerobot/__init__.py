"""LeRobot's data sets, versions 3.0 and 2.1: read into stores, and written for LeRobot. Needs the extra `lerobot`."""
