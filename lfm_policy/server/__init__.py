"""The policy server (openpi's websocket protocol), its client and its load test."""
