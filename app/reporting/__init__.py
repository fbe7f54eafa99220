"""Findings as what a reader or a PACS wants: DICOM objects, PDF, FHIR, CSV.

`app.reporting.results` is the door. highdicom takes seconds to import, so only the modules that make DICOM objects
import it, and they are imported when one is asked for.
"""
