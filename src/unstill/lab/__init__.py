"""Diagnosis of models and comparison of methods: `unstill.diagnose`, `unstill.compare`, and what they measure."""
