"""Transfer: one frozen vector for every task, beside rivals tuned for each. See contract.py."""
