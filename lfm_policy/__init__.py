"""Local Flow Matching policies (arXiv 2410.02548): train, evaluate, distil and deploy robot action generators."""

__version__ = "0.2.0"
