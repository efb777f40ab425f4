"""Run `lfm learning_curve`: kept for one version, so that commands of earlier notes go on working."""

from lfm_cli.__main__ import main

if __name__ == "__main__":
    main("learning_curve")
