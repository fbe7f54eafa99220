"""Chest CT phantoms with known nodules, and writers for the formats that the service reads.

Synthetic only: nothing here is, or is derived from, a patient.
"""
