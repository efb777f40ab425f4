"""Bundles: a trained policy as one checked directory that a robot can run without torch, and the door to every policy.

Reading a bundle and running its graph (`bundle`, `onnx_policy`) needs numpy, pydantic and onnxruntime; torch is
imported only where a torch policy is written or restored.
"""
