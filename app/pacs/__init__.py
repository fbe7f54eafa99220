"""At home in a PACS: series come in by STOW-RS, C-STORE or Orthanc's log, results go back by STOW-RS or C-STORE.

What is analysed and where results go is in one file, `app.pacs.config`. Nothing here is ever sent to an address that a
request or a PACS named.
"""
