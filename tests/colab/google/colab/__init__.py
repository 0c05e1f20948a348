"""Stands for the package that tells a notebook it runs on Colab. Only what the first cell uses is here."""
