"""Fusing experts: their outputs, fusers and policies as steps of a run, and the artefact that comes out."""
