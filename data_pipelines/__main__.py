"""`sf-jax data COMMAND` and `python -m data_pipelines COMMAND`."""

import importlib
import sys

COMMANDS = {
    "render": ("synthetic", "render faces into record files"),
    "import-swift": ("swift", "MS-SWIFT training lines and their pictures → record files"),
    "build": ("faces_builder", "the TFDS dataset of rendered faces"),
    "compare-take": ("compare_take", "plot the sampler beside a recorded take"),
}


def main(argv: list[str]) -> None:
    """Runs a command.

    Raises:
      ValueError: there is none of that name.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: sf-jax data COMMAND …\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:<14} {text}")
        return
    if argv[0] not in COMMANDS:
        raise ValueError(f"no data command {argv[0]!r}; there are {', '.join(COMMANDS)}")
    importlib.import_module(f"data_pipelines.{COMMANDS[argv[0]][0]}").main(argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
