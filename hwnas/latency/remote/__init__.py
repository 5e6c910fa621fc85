"""Measuring a device that hwnas is not installed on: a bundle goes there, results come back."""
