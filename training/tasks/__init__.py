"""Few-shot tasks and the fitting of heads on them: what training/prompts.py is made of."""
