"""Social learning: teachers with private examples teach a student in words.

Paper: https://arxiv.org/abs/2312.11441 (Social Learning: Towards Collaborative Learning
with Large Language Models).
"""
