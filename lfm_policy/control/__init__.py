"""The closed loop on a robot: clock, inference beside the loop, safety gate."""
