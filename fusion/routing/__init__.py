"""Fusion of Experts and FrugalFoE (Wang et al. 2024, arXiv 2310.01542): whom to ask, and whom to believe."""
