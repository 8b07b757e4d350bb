"""Local differential privacy for prompts, and the account of what was released.

`vocabulary` turns text into public token ids, `channels` perturbs them, `sampler`
supplies the randomness, `ledger` remembers every release durably and `accounting`
adds up. A mechanism knows neither the accountant nor the ledger.
"""
