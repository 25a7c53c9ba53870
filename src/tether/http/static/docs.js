// Starts the reference of docs.html. Whatever would ask another host is switched
// off; the page's Content-Security-Policy forbids it besides.
Scalar.createApiReference("#reference", {
  url: "openapi.json",
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  mcp: { disabled: true },
  showDeveloperTools: "never",
  hideClientButton: true,
  documentDownloadType: "json",
  orderSchemaPropertiesBy: "preserve",
  // No frame around a section that a link led to: it is not something to operate.
  customCss: "section[tabindex='-1']:focus-visible { outline: none }",
  defaultHttpClient: { targetKey: "shell", clientKey: "curl" },
});
