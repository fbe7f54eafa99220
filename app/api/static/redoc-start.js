"use strict";
// A file of its own, so that the content security policy needs no inline script.
Redoc.init(
  "openapi.json",
  {
    expandResponses: "200",
    theme: { typography: { fontFamily: "system-ui, sans-serif", headings: { fontFamily: "system-ui, sans-serif" } } },
  },
  document.getElementById("redoc"),
);
