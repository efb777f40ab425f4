"""The commands of `lfm VERB key=value`: each module is one verb."""
