"use strict";
// A file of its own, so that the content security policy needs no inline script.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 4,
  // The default would send the description to a service on the internet.
  validatorUrl: null,
});
