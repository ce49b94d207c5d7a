"""Run the benchmarks named on the command line, or all of the short ones."""

import importlib
import sys

SHORT = ("orchestration", "influence", "memory", "stm", "routing")


def main(names: list[str]) -> None:
    """Run each benchmark as its own module would."""
    for name in names or SHORT:
        print(f"== {name}")
        importlib.import_module(f"tests.benchmarks.bench_{name}").main([])


if __name__ == "__main__":
    main(sys.argv[1:])
