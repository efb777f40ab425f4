"""From a trained policy to a robot: bundles, export, runners, serving and control.

What runs on the robot (`bundle.read`, `runner.OnnxPolicy`) needs numpy, pydantic and onnxruntime; torch is imported
only where a torch policy is written or restored.
"""
