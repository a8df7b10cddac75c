"""`python -m benchmarks.suite`, the command of benchmarks/suite/runner.py."""

from benchmarks.suite.runner import main

if __name__ == "__main__":
    main()
