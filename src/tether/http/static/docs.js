// Starts the reference of docs.html. Whatever would ask another host is switched
// off; the page's Content-Security-Policy forbids it besides.

// The renderer takes a bound below 0 for a mistake, and says so in the console.
function withoutBoundsThatItDoesNotKnow(node) {
  for (const [name, value] of Object.entries(node)) {
    if (name === "exclusiveMinimum" && value < 0) delete node[name];
    else if (value && typeof value === "object") withoutBoundsThatItDoesNotKnow(value);
  }
  return node;
}

// It shows a key of nobody's where none is entered; ours have this form.
function showWhatAKeyIs() {
  for (const input of document.querySelectorAll("input[placeholder^='QUxM']")) {
    input.placeholder = "ttr_live_…";
  }
}

async function start() {
  const answer = await fetch("openapi.json");
  Scalar.createApiReference("#reference", {
    content: withoutBoundsThatItDoesNotKnow(await answer.json()),
    withDefaultFonts: false,
    telemetry: false,
    agent: { disabled: true },
    mcp: { disabled: true },
    showDeveloperTools: "never",
    hideClientButton: true,
    documentDownloadType: "json",
    orderSchemaPropertiesBy: "preserve",
    customCss: `
      /* No frame around a section that a link led to: it is not something to operate. */
      section[tabindex='-1']:focus-visible { outline: none }
      /* Codes stay whole on small screens, and all statuses can be seen. */
      table td:first-child, table th:first-child, table td:first-child code { white-space: nowrap }
      .tab-list { flex-wrap: wrap }
      .ascii-art { display: none }
    `,
    defaultHttpClient: { targetKey: "shell", clientKey: "curl" },
  });
  new MutationObserver(showWhatAKeyIs).observe(document.body, { childList: true, subtree: true });
}

start();
