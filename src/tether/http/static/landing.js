// Puts this server's address into the commands and gives each a copy button.
// Without JavaScript the page says what to replace.
const address = new URL(".", location.href).href.replace(/\/$/, "");
for (const base of document.querySelectorAll(".command b")) base.textContent = address;

for (const command of document.querySelectorAll(".command")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    button.textContent = (await copy(command.querySelector("code"))) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  command.append(button);
}

// The clipboard is there on https and on localhost only; elsewhere the text is
// selected, which the older way of copying needs and the visitor can use too.
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy");
  }
}
